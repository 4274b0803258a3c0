"""The verifier: replays what is committed, and challenges what is wrong."""
