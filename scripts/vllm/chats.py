"""Asks vLLM's rendering server what it makes of chats, and writes chat_cases.jsonl anew.

    chats.py DIRECTORY

DIRECTORY has the form of fixtures/vllm: the model's files in model/, and in chat_cases.jsonl at least
the id, template and request of each line. The server runs inside this process, without an engine, so
that the text which the template made can be kept beside the tokens. Its clock stands at 0 seconds
since 1970. Runs in the environment that scripts/test-vllm.sh installs.
"""

import asyncio
import datetime
import json
import os
import pathlib
import sys

os.environ.update(HF_HUB_OFFLINE="1", VLLM_NO_USAGE_STATS="1", VLLM_LOGGING_LEVEL="ERROR")

import httpx
import transformers.utils.chat_template_utils as chat_template_utils
import vllm.renderers.hf as hf
from vllm import AsyncEngineArgs, envs
from vllm.config import VllmConfig
from vllm.entrypoints.launchers.app import build_app
from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.entrypoints.launchers.render.app_state import init_render_app_state
from vllm.utils.argparse_utils import FlexibleArgumentParser

NAME = "tiny-b"
FLAGS = [
    "--served-model-name", NAME, "--max-model-len", "2048", "--load-format", "dummy",
    "--enable-scale-out", "--trust-request-chat-template",
    "--enable-auto-tool-choice", "--tool-call-parser", "hermes",
]  # fmt: skip

RENDERED = []
apply_chat_template = hf.safe_apply_chat_template


def keep(*args, **kwargs):
    RENDERED.append(apply_chat_template(*args, **kwargs))
    return RENDERED[-1]


class Standing(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(1970, 1, 1)


hf.safe_apply_chat_template = keep
chat_template_utils.datetime = Standing


async def start(model):
    """The server's application."""
    parser = make_arg_parser(FlexibleArgumentParser())
    args = parser.parse_args(["--model", str(model), *FLAGS])
    validate_parsed_serve_args(args)
    engine = AsyncEngineArgs.from_cli_args(args)
    envs.VLLM_CPU_KVCACHE_SPACE = 0
    config = VllmConfig(
        model_config=engine.create_model_config(),
        structured_outputs_config=engine.create_structured_outputs_config(),
    )
    app = build_app(args, ("render",))
    await init_render_app_state(config, app.state, args)
    return app


def content_format(app, template, tools):
    renderer = app.state.online_renderer.renderer
    return hf.resolve_chat_template_content_format(
        chat_template=template,
        tools=tools,
        given_format="auto",
        tokenizer=renderer.get_tokenizer(),
        model_config=renderer.model_config,
    )


async def record(app, client, directory, case):
    """The line of a case. Templates in model/ are chosen by the server itself."""
    request = case["request"]
    path = directory / case["template"]
    template = None if path.parent == directory / "model" else path.read_text()
    body = {**request, "model": NAME} | ({"chat_template": template} if template else {})
    RENDERED.clear()
    answer = await client.post("/v1/chat/completions/render", json=body)
    line = {key: case[key] for key in ("id", "template", "request")}
    line["status"] = answer.status_code
    if answer.status_code != 200:
        return line | {"error": answer.json()["error"]["message"][:200]}
    line["token_ids"] = answer.json()["token_ids"]
    if template:
        line["content_format"] = content_format(app, template, request.get("tools"))
    # The text of a prompt that was cut says nothing of its tokens.
    whole = request.get("truncate_prompt_tokens") is None
    if whole and RENDERED and isinstance(RENDERED[-1], str):
        line["rendered"] = RENDERED[-1]
    return line


async def main():
    directory = pathlib.Path(sys.argv[1])
    path = directory / "chat_cases.jsonl"
    cases = [json.loads(line) for line in path.read_text().splitlines()]
    app = await start(directory / "model")
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://vllm", timeout=60) as client:
        lines = [json.dumps(await record(app, client, directory, case)) for case in cases]
    path.write_text("".join(f"{line}\n" for line in lines))


asyncio.run(main())
