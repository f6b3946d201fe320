"""Images, audio and video of requests: where they are read from and how they are decoded."""
