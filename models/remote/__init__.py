"""An engine elsewhere: an OpenAI-compatible server, named by its URL. Messages go out, the same events come in.

options.py       where the server is and how long it is waited for
chat.py          messages, requests, what is known of the server's model
body.py          a request as JSON
event_stream.py  server-sent events, piece by piece
answer.py        what the server's chunks come to: text, usage, how it ended
failures.py      what goes wrong there, as errors of Hearth's
transport.py     one exchange: retries, timeouts, limits
engine.py        RemoteEngine: a thread with an event loop, one task for each request
"""
