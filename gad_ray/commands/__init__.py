"""What each command of ``gad-ray`` does. The command line imports a module here only when its command runs."""
