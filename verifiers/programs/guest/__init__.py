"""What runs inside the sandbox: sent there as text, joined in the order of `..guests`.

These modules import nothing of the package and as little as possible of the standard library: each
import would be paid for by every run. Nothing they do is trusted.
"""
