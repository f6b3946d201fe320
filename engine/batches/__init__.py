"""Provider batch APIs: rows answered by asynchronous jobs, never paid twice."""
