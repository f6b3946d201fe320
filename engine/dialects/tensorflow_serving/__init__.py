"""TensorFlow Serving's REST predict API."""
