"""From a pending image to a message on the jobs queue, again without a report, and back from the dead-letter queue.

Nothing here may publish a picture or answer a client. Begin with `dispatcher`.
"""
