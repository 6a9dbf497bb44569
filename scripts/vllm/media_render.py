"""Writes the recordings of media_cases.py for several models by vLLM's own render application.

    media_render.py MODELS DIRECTORY NAME…

MODELS holds a folder per model, each with its tokenizer; NAME is one of them. The application is that
of `vllm launch render`, asked without a network: one process serves all models in turn.
"""

import asyncio
import os
import sys
import traceback

import httpx
import media_cases
from vllm import AsyncEngineArgs, envs
from vllm.config import VllmConfig
from vllm.entrypoints.launchers.app import build_app
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.entrypoints.launchers.render.app_state import init_render_app_state
from vllm.utils.argparse_utils import FlexibleArgumentParser


async def application(model):
    parser = make_arg_parser(FlexibleArgumentParser())
    args = parser.parse_args(["--model", model, "--max-model-len", "16384"])
    engine = AsyncEngineArgs.from_cli_args(args)
    envs.VLLM_CPU_KVCACHE_SPACE = 0
    config = VllmConfig(model_config=engine.create_model_config(),
                        logging_config=engine.create_logging_config(),
                        structured_outputs_config=engine.create_structured_outputs_config())
    app = build_app(args, ("render",))
    await init_render_app_state(config, app.state, args)
    return app


def main(models, directory, *names):
    directory = os.path.abspath(directory)
    os.chdir(models)
    for name in names:
        try:
            loop = asyncio.new_event_loop()
            app = loop.run_until_complete(application(name))
            transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
            client = httpx.AsyncClient(transport=transport, base_url="http://render")

            def render(body):
                ask = client.post("/v1/chat/completions/render", json=body, timeout=120)
                answer = loop.run_until_complete(ask)
                good = answer.status_code == 200
                return answer.status_code, answer.json() if good else answer.text[:200]

            media_cases.write(name, directory, render)
        except Exception:
            traceback.print_exc()


if __name__ == "__main__":
    main(*sys.argv[1:])
