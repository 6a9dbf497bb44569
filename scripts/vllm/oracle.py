"""Answers what prompt vLLM makes of a request, by its own functions and without an engine.

    oracle.py SOCKET        listens on a Unix socket; a connection sends lines, and reads as many

A line is a JSON object: `api` (chat, messages, responses, completions), `dir` (a model's directory:
config.json, tokenizer.json and what stands beside them), `template` (as `--chat-template`; none:
the model's own), and `body`, the request as a string. The answer has `ids`, a list of token ids
for each prompt, and for chats `text`, what the template rendered; or `error`. Templates see the
time 1722470405.
"""

import asyncio
import datetime
import json
import os
import sys
import types

os.environ.setdefault("VLLM_LOGGING_LEVEL", "CRITICAL")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import transformers.utils.chat_template_utils as chat_template_utils
import vllm.renderers.hf as hf
from vllm.engine.arg_utils import EngineArgs
from vllm.entrypoints.anthropic.protocol import AnthropicMessagesRequest
from vllm.entrypoints.anthropic.serving import AnthropicServingMessages
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.renderers import renderer_from_config
from vllm.renderers.online_renderer import OnlineRenderer

NOW = datetime.datetime.fromtimestamp(1722470405, datetime.timezone.utc).replace(tzinfo=None)


class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return NOW


chat_template_utils.datetime = Clock
rendered = []
apply = hf.safe_apply_chat_template


def observed(*args, **kwargs):
    text = apply(*args, **kwargs)
    rendered.append(text)
    return text


hf.safe_apply_chat_template = observed


class Engine:
    """What a server has of the engine's front for one directory."""

    def __init__(self, dir):
        args = EngineArgs(model=dir, load_format="dummy", dtype="float32")
        self.config = args.create_engine_config()
        self.renderer = renderer_from_config(self.config)
        self.online = OnlineRenderer(
            model_config=self.config.model_config,
            renderer=self.renderer,
            request_logger=None,
            chat_template=None,
            chat_template_content_format="auto",
            trust_request_chat_template=True,
            enable_auto_tools=True,
            tool_parser="hermes",
        )
        self.messages = {}

    async def anthropic(self, template):
        """How messages become chats here: probed once for a template, as a server does."""
        if template not in self.messages:
            probe = types.SimpleNamespace(
                online_renderer=self.online,
                _extract_prompt_components=lambda engine_input: types.SimpleNamespace(
                    token_ids=engine_input["prompt_token_ids"], text=engine_input.get("prompt")
                ),
            )
            serving = AnthropicServingMessages
            probe._render_probe_prompt = lambda effort: serving._render_probe_prompt(probe, effort)
            self.messages[template] = {
                "merge_inline_system": serving._should_merge_inline_system(self.online),
                "disabled_thinking_effort": await serving._probe_disabled_thinking_effort(probe),
            }
        return self.messages[template]

    async def answer(self, job):
        body, template = json.loads(job["body"]), job.get("template")
        self.online.chat_template = template
        if job["api"] == "completions":
            inputs = await self.online.render_completion(CompletionRequest.model_validate(body))
        elif job["api"] == "responses":
            inputs = await self.online.render_responses(ResponsesRequest.model_validate(body))
            inputs = [inputs.engine_input] if hasattr(inputs, "engine_input") else inputs
        else:
            if job["api"] == "messages":
                request = AnthropicMessagesRequest.model_validate(body)
                how = await self.anthropic(template)
                rendered.clear()
                request = AnthropicServingMessages.to_chat_completion_request(request, **how)
            else:
                request = ChatCompletionRequest.model_validate(body)
            inputs = await self.online.render_chat(request)
            inputs = inputs[1] if isinstance(inputs, tuple) else inputs
        if not isinstance(inputs, list):
            return {"error": str(inputs)[:300]}
        answer = {"ids": [list(prompt["prompt_token_ids"]) for prompt in inputs]}
        if rendered and isinstance(rendered[-1], str):
            answer["text"] = rendered[-1]
        return answer


engines = {}


async def answer(job):
    rendered.clear()
    try:
        if job["dir"] not in engines:
            engines[job["dir"]] = Engine(job["dir"])
        return await engines[job["dir"]].answer(job)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:300]}


async def serve(path):
    async def connection(reader, writer):
        while line := await reader.readline():
            answered = json.dumps(await answer(json.loads(line)))
            writer.write(answered.encode() + b"\n")
            await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(connection, path, limit=1 << 26)
    print("listening", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
