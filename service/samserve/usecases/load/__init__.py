"""Load policies: admission, deadlines, rate limits, shared work, and the threads that compute."""
