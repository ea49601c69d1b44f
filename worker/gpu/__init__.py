"""The GPU's loop: which images share the next step, on which model, and the record of what each one cost.

Nothing here may receive, upload or delete. The life of an image, step by step, with the module of each:

1. It waits in the prefetch window (`worker.holding.window`), received by `worker.intake.receiver`.
2. `lookahead` chooses it: to join the running session, or for the next one. `worker.batching` has the pure rules.
3. `announcer` announces it: `models` loads its model if it is not loaded, `still_wanted` asks core once more whether
   the image is wanted, and the reply queue accepts its `started`.
4. `loop` hands it to the running session or begins a session with it. Start reading there: it shows the plain, the
   batched and the overlapped loop side by side.
5. `sessions.stepper`, the session's part on the GPU thread, lets it in at the next step; `sessions.choice` asks the
   policy which images take each step. `sessions.mailbox` holds everything that the GPU thread and the event loop share,
   and says which of them may touch what.
6. After its last step it waits in `sessions.decode_queue` for a permit of the delivery pipeline, and is decoded by
   `sessions.picture_decoder`.
7. `renderer` turns the thread's events (`sessions.events`) into states, times and pictures on the event loop, with
   `render_record`. When the engine fails, it bisects the batch until the culprit is alone.
8. `worker.output.delivery` encodes and uploads the picture, replies and deletes the message.

Meanwhile `watchdog` detects a hung GPU thread, and `worker.time_ledger` accounts for every second of GPU time.
"""
