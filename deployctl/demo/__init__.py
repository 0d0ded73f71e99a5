"""Throwaway hosts on this machine, and a small application to release to them.

Owns an SSH server that needs nothing installed; for trying things out on loopback, never for serving anybody.
"""
