"""The OpenAI-compatible HTTP API under /v1. Stateless: a client hands over the whole chat, the KV cache knows it.

bodies.py         bodies of requests, read within limits
options.py        what the API may take and who may use it
errors.py         errors in the shape that OpenAI's clients read
fields.py         a JSON object read field by field, nothing in it ignored
content.py        messages with pictures and sounds in them
chat_call.py      parameters of a chat completion or a text completion
service.py        what the requests run on: the assistant's engine, senses, embedder and transcriber
jobs.py           requests on threads of their own, ended when their client goes
streaming.py      an answer as server-sent events
shapes.py         answers as JSON
embeddings.py, transcriptions.py, models.py   the other endpoints
router.py         the routes, the key, the limits
"""
