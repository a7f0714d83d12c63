"""What pytest leaves alone."""

collect_ignore = ["atheris_run.py"]  # a program; it needs atheris, which the tests do not
