"""Is a score the same by whichever way it comes: from training, from ``gad-ray score``, and over HTTP?"""
