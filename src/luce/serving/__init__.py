"""`luce serve`: runs behind HTTP.

A request's body is bytes from anybody. Short JSON is read where it arrives; everything else is read
by a process of its own, with so much memory and so much time (`reader`). What comes of it are rows
(`rows`), and one thread predicts whatever rows are waiting, all at once (`inference`).
"""
