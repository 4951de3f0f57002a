"""Verifies messages with the official Python library of Standard Webhooks.

Reads a JSON array of {"secret", "headers", "body"} from standard input; a changed body must fail.
"""
import json
import sys

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

messages = json.load(sys.stdin)
for message in messages:
    webhook = Webhook(message["secret"])
    webhook.verify(message["body"], message["headers"])
    try:
        webhook.verify(message["body"] + " ", message["headers"])
    except WebhookVerificationError:
        continue
    sys.exit("a changed body was accepted")
print(f"verified {len(messages)}")
