"""What clients of the two Chatterbox servers speak, so that they change one address and go on.

`travisvn/chatterbox-tts-api` has most of the routes (speech, voices, status and more), and
`devnen/Chatterbox-TTS-Server` has `/tts` and its user interface's; docs/compatibility.md tells
what differs.
"""
