"""A small page that says where it runs."""

import platform
import signal
import sys

import flask

app = flask.Flask(__name__)


@app.route("/")
def hello():
    return f"Hello from Flask {flask.__version__ if hasattr(flask, '__version__') else ''} on Python {platform.python_version()}, in a container made by shale\n"


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    app.run(host="0.0.0.0", port=80)
