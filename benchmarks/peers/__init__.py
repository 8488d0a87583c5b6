"""Other people's ways of doing it, run beside ours."""
