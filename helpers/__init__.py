"""What the six notebooks call: small modules, each with one job.

Nothing is imported here, so that `import helpers` costs nothing: bitsandbytes and the doctor load
single modules in processes where torch may be broken or not wanted.
"""
