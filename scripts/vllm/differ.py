"""Random requests, and which of them become other prompts here than in vLLM.

    differ.py KIND SEED COUNT SOCKET PROMPTS DIR TEMPLATES [OUT]

KIND is chat, messages, responses, completions, jinja or texts; SOCKET is where oracle.py listens;
PROMPTS the `prompts` example of crates/text; DIR a model's directory; TEMPLATES a directory of
chat templates. Differences are printed. With OUT, requests and vLLM's answers are written there as
crates/text/tests/oracle has them.
"""

import json
import os
import random
import socket
import subprocess
import sys

import jinja

WORDS = (
    "the pod Holds a prefix it's don't blocks 42 3.14 e.g. x=1 {} [] <b> & \"quoted\" 'single' back\\slash "
    "über naïve 日本語 Привет مرحبا 🙂 👩‍👩‍👧 e\u0301 ﬁ \u00a0 \u200b <think> </think> /no_think <|im_end|> [INST] "
    "{{x}} {%y%} None True null $100% a_b #tag \u2028 \ufeff ½ Ǆ ẞ ı"
).split(" ")


class Random(random.Random):
    def text(self, most=12):
        kind = self.randrange(20)
        if kind == 0:
            return ""
        if kind == 1:
            return self.choice([" ", "\n", "\n\n ", "\t", "\r\n"])
        if kind == 2:
            return self.choice(
                ["<think>\nwhy\n</think>\n\nso", "a</think>b</think>c", "<think>x", "\nlead", "trail \n",
                 "x-anthropic-billing-header: cch=1\nrest", "x-anthropic-billing-header: cch=1", "/no_think",
                 "<tool_response>\nr\n</tool_response>", "a\r\nb\r\n\r\nc", '{"a": 1}', "CONTINUE_FINAL_MESSAGE_TAG "]
            )
        words = [self.choice(WORDS) for _ in range(self.randint(1, most))]
        text = words[0]
        for word in words[1:]:
            text += self.choice([" ", " ", " ", "  ", "\n", ", ", "", "\t"]) + word
        return text

    def maybe(self, share=0.5):
        return self.random() < share

    def value(self, depth=0):
        kind = self.randrange(9 if depth < 3 else 6)
        if kind == 0:
            return self.choice([None, True, False])
        if kind == 1:
            return self.choice([0, 1, -7, 10**12, 2**63, -(2**70)])
        if kind == 2:
            return self.choice([0.5, 1.0, -2.25, 1e16, 1e-7, 123456.789, 1e300])
        if kind < 6:
            return self.text(4)
        if kind == 6:
            return [self.value(depth + 1) for _ in range(self.randrange(4))]
        return {self.key(): self.value(depth + 1) for _ in range(self.randrange(4))}

    def key(self):
        return self.choice(["a", "name", "é", "items", "x y", "location", "unit", "get", "keys", "type", "b\"c"])

    def schema(self, depth=0):
        kind = self.choice(["string", "number", "integer", "boolean", "object", "array", "union", "enum"])
        if kind == "enum":
            schema = {"type": "string", "enum": ["a", "b c", "é"]}
        elif kind == "union":
            schema = {"type": ["string", "null"]}
        elif kind == "object" and depth < 2:
            schema = {"type": "object", "properties": {self.key(): self.schema(depth + 1) for _ in range(2)}}
        elif kind == "array" and depth < 2:
            schema = {"type": "array", "items": self.schema(depth + 1)}
        else:
            schema = {"type": kind if kind not in ("object", "array") else "string"}
        if self.maybe(0.7):
            schema["description"] = self.text(6)
        if self.maybe(0.2):
            schema["default"] = self.value(2)
        if self.maybe(0.1):
            schema["nullable"] = True
        return schema

    def parameters(self):
        if self.maybe(0.1):
            return {}
        schema = {"type": "object", "properties": {self.key(): self.schema() for _ in range(self.randrange(4))}}
        if self.maybe():
            schema["required"] = [self.key()]
        if self.maybe(0.2):
            schema["additionalProperties"] = False
        return schema

    def function(self):
        function = {"name": self.choice(["get_weather", "search", "f", "a.b-c"])}
        if self.maybe(0.8):
            function["description"] = self.text(8)
        if self.maybe(0.9):
            function["parameters"] = self.parameters()
        if self.maybe(0.2):
            function["strict"] = self.choice([True, False, None])
        if self.maybe(0.05):
            function["extra"] = self.value()
        if self.maybe(0.1):
            function["defer_loading"] = self.choice([True, False, None])
        self.shuffle(keys := list(function))
        return {key: function[key] for key in keys}

    def tool(self):
        tool = {"type": "function", "function": self.function()}
        if self.maybe(0.1):
            del tool["type"]
        if self.maybe(0.1):
            tool["defer_loading"] = self.choice([True, False, None])
        if self.maybe(0.05):
            tool["cache_control"] = {"type": "ephemeral"}
        return tool

    def call(self):
        arguments = {self.key(): self.value() for _ in range(self.randrange(4))}
        kind = self.randrange(12)
        if kind < 8:
            arguments = json.dumps(arguments, ensure_ascii=self.maybe())
        elif kind == 8:
            arguments = self.choice(["", "{", "[]", "null", "42", '{"a":1,"a":2}', "{'a':1}", '{"a": NaN}', ' {"a": 1} ', '"x"'])
        elif kind == 9 and self.maybe():
            arguments = None
        call = {
            "id": self.choice(["call_1", "abcdefghi", "functions.f:0", "123456789"]),
            "type": "function",
            "function": {"name": self.choice(["get_weather", "f"]), "arguments": arguments},
        }
        if self.maybe(0.1):
            del call[self.choice(["id", "type"])]
        if self.maybe(0.05):
            call["index"] = 0
        if self.maybe(0.05):
            call["function"]["extra"] = 1
        if self.maybe(0.04):
            del call["function"]["arguments"]
        if self.maybe(0.3):
            self.shuffle(keys := list(call))
            call = {key: call[key] for key in keys}
        return call

    def part(self):
        kind = self.choice(["text"] * 12 + ["input_text", "output_text", "refusal", "thinking", "bare", "null", "tool_reference", "unknown", "extra", "untyped"])
        text = self.text()
        return {
            "text": {"type": "text", "text": text},
            "input_text": {"type": "input_text", "text": text},
            "output_text": {"type": "output_text", "text": text},
            "refusal": {"type": "refusal", "refusal": text},
            "thinking": {"type": "thinking", "thinking": text},
            "bare": text,
            "null": {"type": "text", "text": None},
            "tool_reference": {"type": "tool_reference", "name": "f"},
            "unknown": {"type": "nothing", "nothing": 1},
            "extra": {"type": "text", "text": text, "cache_control": {"type": "ephemeral"}},
            "untyped": {"text": text},
        }[kind]

    def content(self):
        kind = self.randrange(12)
        if kind < 8:
            return self.text(30)
        if kind < 11:
            return [self.part() for _ in range(self.randrange(4))]
        return None

    def message(self, role):
        message = {"role": role, "content": self.content()}
        if role == "assistant":
            if self.maybe(0.3):
                message["tool_calls"] = [self.call() for _ in range(self.choice([1, 1, 1, 2, 0]))]
                if self.maybe():
                    message["content"] = self.choice([None, ""])
                if self.maybe(0.2):
                    del message["content"]
            if self.maybe(0.2):
                message[self.choice(["reasoning", "reasoning_content"])] = self.choice([self.text(), None])
            if self.maybe(0.04):
                message[self.choice(["refusal", "audio", "function_call", "thinking"])] = self.choice([None, "x"])
        if role == "tool":
            message["tool_call_id"] = self.choice(["call_1", "abcdefghi", "123456789"])
            if self.maybe(0.1):
                del message["tool_call_id"]
        if self.maybe(0.06):
            message["name"] = self.choice(["bob", "", None, 5])
        if self.maybe(0.03):
            message[self.choice(["task", "extra", "weight", "tools", "prefix"])] = self.choice(["t", None, [1], True])
        if self.maybe(0.01):
            message.pop("content", None)
        if self.maybe(0.1):
            self.shuffle(keys := list(message))
            message = {key: message[key] for key in keys}
        return message

    def messages(self):
        messages = []
        if self.maybe(0.4):
            messages.append(self.message("developer" if self.maybe(0.15) else "system"))
        for turn in range(self.choice([1, 1, 2, 2, 3, 4])):
            if turn:
                assistant = self.message("assistant")
                messages.append(assistant)
                for _ in assistant.get("tool_calls") or []:
                    messages.append(self.message("tool"))
                if assistant.get("tool_calls") and self.maybe(0.6):
                    continue
            messages.append(self.message("user"))
        if self.maybe(0.15):
            messages.append(self.message("assistant"))
        if self.maybe(0.08):
            messages.insert(self.randint(0, len(messages)), self.message(self.choice(["system", "developer", "tool", "user", "critic"])))
        if self.maybe(0.01):
            return []
        return messages

    def kwargs(self):
        names = ["enable_thinking", "thinking", "add_vision_id", "date_string", "custom_tools", "controls", "builtin_tools",
                 "model_identity", "xml_tools", "python_tools", "bos_token", "truncate_history_thinking", "documents",
                 "tools_in_user_message", "strftime_now", "tools", "messages", "range", "padding", "return_dict",
                 "add_generation_prompt", "continue_final_message", "chat_template", "tokenize", "conversation", "max_length",
                 "reasoning_effort", "namespace", "raise_exception", "return_assistant_tokens_mask", "truncation"]
        weights = [20, 8, 8, 6, 4, 5, 4, 5, 4, 4, 4, 4, 4, 4] + [1] * 17
        kwargs = {}
        for _ in range(self.randint(1, 3)):
            name = self.choices(names, weights)[0]
            value = self.choice([True, False, "auto", None, "x", 1, [], ["a", "b"], {"citations": True}, {"a": 1}])
            if name in ("enable_thinking", "thinking", "add_vision_id", "tools_in_user_message") and self.maybe(0.8):
                value = self.maybe()
            if name in ("date_string", "model_identity") and self.maybe(0.8):
                value = self.text(3)
            if name in ("custom_tools", "xml_tools", "tools") and self.maybe(0.8):
                value = [self.tool()]
            kwargs[name] = value
        return kwargs

    def chat(self):
        body = {"model": "m", "messages": self.messages()}
        if self.maybe(0.35):
            body["tools"] = [self.tool() for _ in range(self.choice([1, 1, 2, 3]))]
            if self.maybe(0.01):
                body["tools"] = self.choice([[], None])
            if self.maybe(0.3):
                body["tool_choice"] = self.choice(["auto", "none", "required", None, {"type": "function", "function": {"name": "f"}}])
        if self.maybe(0.12):
            body["add_generation_prompt"] = self.maybe(0.2)
            if self.maybe(0.6):
                body["continue_final_message"] = self.maybe(0.8)
        if self.maybe(0.25):
            body["chat_template_kwargs"] = self.choice([None, {}]) if self.maybe(0.05) else self.kwargs()
        if self.maybe(0.12):
            body["documents"] = [
                {key: self.text(6) for key in self.sample(["title", "text", "id", "url", "é"], self.randint(1, 3))}
                for _ in range(self.randint(0, 2))
            ]
            if self.maybe(0.05):
                body["documents"] = self.choice([None, ["x"], {}, "x", [{"text": 5}]])
        if self.maybe(0.12):
            body["reasoning_effort"] = self.choice(["none", "minimal", "low", "medium", "high", "xhigh", "max", None, "silly"])
        if self.maybe(0.05):
            body["add_special_tokens"] = self.choice([True, False, None])
        if self.maybe(0.05):
            body["truncate_prompt_tokens"] = self.choice([1, 5, 20, -1, 0, -2, None])
            if self.maybe():
                body["truncation_side"] = self.choice(["left", "right", None, "middle"])
            if self.maybe():
                body[self.choice(["max_tokens", "max_completion_tokens"])] = self.choice([1, 16, 0, None])
        if self.maybe(0.02):
            body["echo"] = True
        return body

    def block(self, role):
        kind = self.choice(["text"] * 8 + ["thinking", "redacted_thinking", "tool_use", "tool_use", "tool_result", "tool_result", "tool_reference", "empty", "odd"])
        if kind == "text":
            block = {"type": "text", "text": self.text(20)}
            if self.maybe(0.1):
                block["cache_control"] = {"type": "ephemeral"}
            return block
        if kind == "thinking":
            return {"type": "thinking", "thinking": self.text(), "signature": "s"}
        if kind == "redacted_thinking":
            return {"type": "redacted_thinking", "data": "zz"}
        if kind == "tool_use":
            block = {"type": "tool_use", "id": self.choice(["toolu_1", "abcdefghi"]), "name": "f", "input": {self.key(): self.value() for _ in range(self.randrange(3))}}
            if self.maybe(0.1):
                block["input"] = None
            if self.maybe(0.05):
                block["name"] = None
            return block
        if kind == "tool_result":
            content = self.choice([self.text(), None, [], [{"type": "text", "text": self.text()} for _ in range(self.randint(1, 3))],
                                   [{"type": "tool_reference", "tool_name": "f"}, {"type": "text", "text": "x"}], [{"type": "text"}],
                                   [{"type": "tool_reference", "name": "g"}]])
            block = {"type": "tool_result", "tool_use_id": "toolu_1", "content": content}
            if self.maybe(0.1):
                block["is_error"] = True
            if self.maybe(0.1):
                del block["tool_use_id"]
            return block
        if kind == "tool_reference":
            return {"type": "tool_reference", "tool_name": "f"}
        if kind == "odd":
            return self.choice([{"type": "text", "text": None}, {"type": "document"}, {"text": "x"}, "x", {"type": "thinking"}, {"type": "text", "text": 5},
                                {"type": "tool_addition", "tool": {"type": "tool_reference", "name": "f"}}])
        return {"type": "text", "text": ""}

    def anthropic(self):
        body = {"model": "m", "max_tokens": 16, "messages": []}
        role = "user"
        for _ in range(self.choice([1, 1, 2, 3, 5])):
            content = self.text(30) if self.maybe() else [self.block(role) for _ in range(self.randrange(4))]
            body["messages"].append({"role": role, "content": content})
            role = "assistant" if role == "user" else "user"
            if self.maybe(0.06):
                content = self.text() if self.maybe() else [{"type": "text", "text": self.text()} for _ in range(self.randint(0, 2))]
                if self.maybe(0.2) and isinstance(content, list):
                    content.append(self.choice([
                        {"type": "tool_removal", "tool": {"type": "tool_reference", "name": "f"}},
                        {"type": "tool_addition", "tool": {"type": "tool_reference", "name": "f"}},
                        {"type": "tool_addition", "tool": {"type": "tool_definition", "definition": {"name": "n", "input_schema": {}}}}]))
                body["messages"].append({"role": "system", "content": content})
        if self.maybe():
            body["system"] = self.text() if self.maybe() else [
                {"type": "text", "text": self.text()} for _ in range(self.randrange(3))]
        if self.maybe(0.3):
            body["tools"] = []
            for _ in range(self.randint(0 if self.maybe(0.1) else 1, 2)):
                tool = {"name": self.choice("fg"), "input_schema": self.parameters()}
                if self.maybe(0.7):
                    tool["description"] = self.text()
                if self.maybe(0.2):
                    tool[self.choice(["strict", "defer_loading"])] = self.choice([True, False, None])
                if self.maybe(0.03):
                    tool["type"] = "custom"
                body["tools"].append(tool)
            if self.maybe(0.5):
                body["tool_choice"] = self.choice([{"type": "auto"}, {"type": "any"}, {"type": "none"}, {"type": "tool", "name": "f"}, None, {"type": "tool"}])
        if self.maybe(0.15):
            body["thinking"] = self.choice([{"type": "enabled", "budget_tokens": 1024}, {"type": "disabled"}, {"type": "adaptive"}, {"type": "enabled", "budget_tokens": 5}, None])
        if self.maybe(0.1):
            body["output_config"] = self.choice([{"effort": "low"}, {"effort": "max"}, {}, None, {"effort": "minimal"}])
        if self.maybe(0.15):
            body["chat_template_kwargs"] = self.kwargs()
        if self.maybe(0.02):
            del body["max_tokens"]
        return body

    def item(self):
        kind = self.choice(["message"] * 8 + ["assistant", "assistant", "function_call", "function_call", "output", "output", "reasoning", "custom", "odd"])
        if kind == "message":
            content = self.text(20)
            if self.maybe(0.4):
                content = [{"type": "input_text", "text": self.text()} for _ in range(self.randint(0 if self.maybe(0.1) else 1, 3))]
            item = {"role": self.choice(["user", "user", "user", "system", "developer"]), "content": content}
            if self.maybe(0.3):
                item["type"] = "message"
            if self.maybe(0.05):
                item["status"] = self.choice(["completed", "incomplete"])
            if self.maybe(0.05):
                item["id"] = "msg_1"
            return item
        if kind == "assistant":
            content = self.text(20)
            if self.maybe(0.6):
                content = [{"type": "output_text", "text": self.text()} for _ in range(self.randint(0 if self.maybe(0.1) else 1, 2))]
                if self.maybe(0.2):
                    content = [{"type": "refusal", "refusal": "no"}]
                elif self.maybe():
                    for part in content:
                        part["annotations"] = []
            item = {"role": "assistant", "content": content}
            if self.maybe(0.6):
                item["type"] = "message"
            if self.maybe(0.3):
                item["status"] = self.choice(["completed", "incomplete", "in_progress"])
            if self.maybe(0.3):
                item["id"] = "msg_2"
            return item
        if kind == "function_call":
            item = {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": self.choice(['{"a": 1}', "{}", "", '{"é":[1.50]}', "broken"])}
            if self.maybe(0.3):
                item["id"] = "fc_1"
            if self.maybe(0.3):
                item["status"] = "completed"
            if self.maybe(0.1):
                item["namespace"] = "ns"
            if self.maybe(0.05):
                del item[self.choice(["call_id", "name", "arguments"])]
            return item
        if kind == "output":
            output = self.text() if self.maybe(0.8) else [{"type": "input_text", "text": self.text()} for _ in range(2)]
            item = {"type": "function_call_output", "call_id": "call_1", "output": output}
            if self.maybe(0.2):
                item["id"] = "fco_1"
            if self.maybe(0.2):
                item["status"] = "completed"
            return item
        if kind == "reasoning":
            item = {"type": "reasoning", "summary": [{"type": "summary_text", "text": self.text()} for _ in range(self.randrange(2))]}
            if self.maybe(0.7):
                item["content"] = [{"type": "reasoning_text", "text": self.text()} for _ in range(self.randrange(3))]
            if self.maybe():
                item["id"] = "rs_1"
            if self.maybe(0.2):
                item["status"] = self.choice(["completed", "incomplete", None])
            if self.maybe(0.1):
                item["encrypted_content"] = self.choice(["x", None, ""])
            if self.maybe(0.05):
                del item["summary"]
            return item
        if kind == "custom":
            if self.maybe():
                return {"type": "custom_tool_call", "call_id": "c1", "name": "f", "input": self.text()}
            return {"type": "custom_tool_call_output", "call_id": "c1", "output": self.text()}
        return self.choice([{"type": "item_reference", "id": "x"}, {"type": "web_search_call", "id": "w", "status": "completed", "action": {"type": "search", "query": "q"}},
                            {"role": "user"}, {"role": "tool", "content": "x"}, {"content": "x"}, "x", {"role": "critic", "content": "x"},
                            {"role": "user", "content": None}, {"role": "user", "content": [{"type": "text", "text": "x"}]}, {"role": "user", "content": "x", "name": "bob"}])

    def responses(self):
        body = {"model": "m", "input": self.text(30) if self.maybe(0.15) else [self.item() for _ in range(self.randint(0 if self.maybe(0.05) else 1, 6))]}
        if self.maybe(0.3):
            body["instructions"] = self.choice([self.text(), None])
        if self.maybe(0.3):
            body["tools"] = []
            for _ in range(self.randint(0 if self.maybe(0.1) else 1, 2)):
                tool = {"type": "function", "name": self.choice(["f", "g"]), "parameters": self.parameters()}
                if self.maybe(0.7):
                    tool["description"] = self.text()
                if self.maybe(0.4):
                    tool["strict"] = self.choice([True, False, None])
                if self.maybe(0.1):
                    tool["defer_loading"] = self.choice([True, False, None])
                if self.maybe(0.05):
                    del tool["parameters"]
                if self.maybe(0.1):
                    tool = self.choice([{"type": "web_search"}, {"type": "custom", "name": "c", "description": "d"}, {"type": "mcp", "server_label": "s", "server_url": "http://x"},
                                        {"type": "namespace", "name": "ns", "description": "n", "tools": [{"type": "function", "name": "h", "parameters": {}}]}])
                body["tools"].append(tool)
            if self.maybe(0.3):
                body["tool_choice"] = self.choice(["auto", "none", "required", {"type": "function", "name": "f"}])
        if self.maybe(0.2):
            body["reasoning"] = self.choice([{"effort": "low"}, {"effort": "none"}, {"effort": "high", "summary": "auto"}, {}, None])
        if self.maybe(0.15):
            body["chat_template_kwargs"] = self.kwargs()
        if self.maybe(0.05):
            body["truncation"] = self.choice(["auto", "disabled", None])
        if self.maybe(0.05):
            body["max_output_tokens"] = self.choice([16, None])
        if self.maybe(0.02):
            body["previous_response_id"] = "resp_1"
        if self.maybe(0.02):
            body["store"] = False
        return body

    def completion(self):
        kind = self.randrange(10)
        if kind < 5:
            prompt = self.text(30)
        elif kind < 7:
            prompt = [self.text() for _ in range(self.randint(1, 3))]
        elif kind == 7:
            prompt = [self.randrange(300) for _ in range(self.randint(0, 9))]
        elif kind == 8:
            prompt = [[self.randrange(300) for _ in range(self.randint(0, 9))] for _ in range(self.randint(1, 3))]
        else:
            prompt = self.choice([None, [], ["a", 1], [1, "a"], [[]], [-1], {}, 5, [[1], "a"], [1.5], [1.0], [True], "", [""], ["1"], [["1"]]])
        body = {"model": "m", "prompt": prompt}
        if self.maybe(0.2):
            body["add_special_tokens"] = self.choice([True, False, None, "true", 1])
        if self.maybe(0.3):
            body["truncate_prompt_tokens"] = self.choice([1, 5, 20, -1, 0, -2, None, "5", 3.0, 100000])
            if self.maybe():
                body["truncation_side"] = self.choice(["left", "right", None, "middle"])
            if self.maybe():
                body["max_tokens"] = self.choice([1, 16, 0, None, 2000])
        if self.maybe(0.2):
            body["echo"] = self.maybe()
        if self.maybe(0.05):
            body["suffix"] = self.choice(["x", "", None])
        return body

    def body(self, kind):
        return {"chat": self.chat, "messages": self.anthropic, "responses": self.responses, "completions": self.completion}[kind]()


def answers(process, jobs):
    """The lines that a process answers on its standard output."""
    done = subprocess.run([process], input="".join(json.dumps(job) + "\n" for job in jobs), capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    return [json.loads(line) for line in done.stdout.split("\n")[:-1]]


def asked(path, jobs):
    """The answers of oracle.py."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        file = connection.makefile("rw")
        found = []
        for job in jobs:
            file.write(json.dumps(job) + "\n")
            file.flush()
            found.append(json.loads(file.readline()))
        return found


def same(ours, theirs):
    if "error" in theirs:
        return "error" in ours
    return "error" not in ours and ours["ids"] == theirs["ids"] and ours.get("text") == theirs.get("text")


def main(kind, seed, count, oracle, prompts, dir, templates, out=None):
    rng = Random(int(seed))
    files = sorted(os.listdir(templates))
    jobs = []
    for _ in range(int(count)):
        if kind == "jinja":
            body = {"messages": [{"role": "user", "content": "Hi"}], "chat_template_kwargs": jinja.VARIABLES}
            template = jinja.Jinja(rng).template()
            jobs.append({"api": "chat", "dir": dir, "name": template, "template": template, "body": json.dumps(body)})
            continue
        name = rng.choice(files) if kind != "completions" else None
        with open(os.path.join(templates, name)) if name else open(os.devnull) as file:
            template = file.read() if name else None
        body = json.dumps(rng.body(kind), ensure_ascii=rng.maybe())
        jobs.append({"api": kind, "dir": dir, "name": name, "template": template, "body": body})
    theirs, ours = asked(oracle, jobs), answers(prompts, jobs)
    kept, kinds = [], {"equal": 0, "refused": 0, "differ": 0}
    for job, their, our in zip(jobs, theirs, ours):
        equal = same(our, their)
        kinds["differ" if not equal else "refused" if "error" in their else "equal"] += 1
        if equal:
            kept.append((job, their))
            continue
        print("-----", repr(job["name"]), "" if kind == "jinja" else job["body"])
        print("  vllm:", their.get("error") or repr(their.get("text")), their.get("ids") if their.get("text") == our.get("text") else "")
        print("  ours:", our.get("error") or repr(our.get("text")), our.get("ids") if their.get("text") == our.get("text") else "")
    print(kinds)
    if out:
        with open(out, "a") as file:
            for job, their in kept:
                line = {"api": job["api"], "template": job["name"], "body": job["body"]}
                line |= {"error": True} if "error" in their else their
                file.write(json.dumps(line, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
