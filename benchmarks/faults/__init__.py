"""What the health rules are worth: real short runs, each made sick in one way or left healthy, and who named it.

::

    case ─► rows, overrides, injection ─► gad-ray train, in a process of its own ─► evidence ─► verdict ─► tables, page
"""
