"""Records what Jinja2 renders, set up as transformers does for chat templates.

usage: python record.py > cases.jsonl      (Python 3.11 with jinja2 3.1.6)

Snippets stand in snippets.txt, one per paragraph: a line of JSON with the variables, then the
template. Whole templates stand in *.jinja, rendered with each chat of chats.json. Time is fixed.
"""

import datetime
import json
import pathlib
import sys

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

HERE = pathlib.Path(__file__).parent
NOW = datetime.datetime.fromtimestamp(1722470405, datetime.timezone.utc).replace(tzinfo=None)


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        call = self.call_method("_support")
        return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _support(self, caller):
        return caller()


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(
        x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


ENV = ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
)
ENV.filters["tojson"] = tojson
ENV.globals["raise_exception"] = raise_exception
ENV.globals["strftime_now"] = NOW.strftime


def record(case, template, variables):
    base = {"messages": [], "tools": None, "documents": None, "add_generation_prompt": True}
    try:
        case["rendered"] = ENV.from_string(template).render(**{**base, **variables})
    except Exception as error:
        case["error"] = f"{type(error).__name__}: {error}"
    json.dump(case, sys.stdout, ensure_ascii=False)
    print()


for paragraph in (HERE / "snippets.txt").read_text().split("\n\n\n"):
    variables, _, template = paragraph.strip("\n").partition("\n")
    variables = json.loads(variables)
    record({"template": template, "variables": variables}, template, variables)

for path in sorted(HERE.glob("*.jinja")):
    for name, chat in json.loads((HERE / "chats.json").read_text()).items():
        given = {"bos_token": "<s>", "eos_token": "</s>", **chat.get("chat_template_kwargs", {})}
        given |= {key: value for key, value in chat.items() if key != "chat_template_kwargs"}
        record({"file": path.name, "chat": name}, path.read_text(), given)
