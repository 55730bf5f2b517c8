"""What is wrong with data: figures on prompts, teacher and student, findings with advice, and how they are shown.

Above ``data`` and ``evaluation``, because a policy may answer the prompts and a critic score the answers.
"""
