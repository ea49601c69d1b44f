"""Sends pending images to the jobs queue, again where no report comes, and takes back those that were dead-lettered.

Nothing here may publish a picture or answer a client. Begin with `dispatcher`.
"""
