"""Where helpers/worker/callback.py was once.

bitsandbytes loads `register` by the name that a .venv was set up with, and a name that is gone
makes `import bitsandbytes` raise: a .venv made before must find it here.
"""

from helpers.worker.callback import register

__all__ = ["register"]
