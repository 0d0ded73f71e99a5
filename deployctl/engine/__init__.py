"""Where tasks run: forked workers, a pipe each way for each, JSON across. Knows nothing of SSH.

              parent, one thread                           worker, one forked process of a few
    crew.send ─── inbox pipe, one JSON line a command ───▶ reader thread ─▶ servant (main thread)
    crew.poll ◀── result pipe, one JSON line a status ──── line.send (any thread)
         ▲─────── sentinel: readable when the process is gone

No lock and no queue is shared between processes, so killing one worker can neither block nor corrupt another. Each
worker leads a process group: what a task starts ends with its worker, and the worker with the parent.
"""
