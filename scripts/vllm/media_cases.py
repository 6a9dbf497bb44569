"""Has a vLLM render chats with images, and writes requests and answers, one JSON object per line.

    media_cases.py URL MODEL DIRECTORY

writes DIRECTORY/MODEL.jsonl and DIRECTORY/images.json, the data URLs that the requests name as
`image:NAME`. The server must run with `--enable-scale-out` (or as `vllm launch render`). Images are
made here, small and of one colour; all kinds whose size and mode are read from headers, and some
that are not.
"""

import base64
import io
import json
import sys
import urllib.error
import urllib.request

from PIL import Image

COLOURS = {"RGB": (10, 120, 200), "RGBA": (10, 120, 200, 90), "L": 77, "LA": (77, 90), "P": 3,
           "CMYK": (1, 2, 3, 4), "1": 1, "I;16": 7}


def image(width, height, mode="RGB", kind="PNG", orientation=None, **options):
    """A data URL."""
    picture = Image.new(mode, (width, height), COLOURS[mode])
    if orientation is not None:
        exif = Image.Exif()
        exif[0x010F] = "A maker of cameras"
        exif[0x0112] = orientation
        options["exif"] = exif
    data = io.BytesIO()
    picture.save(data, kind, **options)
    return f"data:image/{kind.lower()};base64," + base64.b64encode(data.getvalue()).decode()


def xmp(width, height):
    from PIL import PngImagePlugin
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')
    return image(width, height, pnginfo=info)


IMAGES = {
    "png": image(100, 80), "one pixel": image(1, 1), "wide": image(900, 50),
    "tall": image(60, 600), "large": image(1500, 1000), "half units": image(378, 406),
    "grey": image(50, 70, "L"), "alpha": image(300, 200, "RGBA"), "grey alpha": image(90, 91, "LA"),
    "palette": image(64, 65, "P"), "one bit": image(31, 33, "1"), "16 bit": image(40, 44, "I;16"),
    "turned png": image(300, 120, orientation=6), "png upside down": image(300, 120, orientation=3),
    "jpeg": image(333, 222, kind="JPEG"), "grey jpeg": image(120, 77, "L", "JPEG"),
    "cmyk jpeg": image(77, 120, "CMYK", "JPEG"), "progressive": image(200, 99, kind="JPEG",
                                                                     progressive=True),
    "turned jpeg": image(400, 150, kind="JPEG", orientation=8),
    "mirrored jpeg": image(400, 150, kind="JPEG", orientation=5),
    "straight jpeg": image(400, 150, kind="JPEG", orientation=1),
    "webp": image(222, 111, kind="WEBP"), "lossless webp": image(111, 222, kind="WEBP",
                                                                 lossless=True),
    "alpha webp": image(140, 130, "RGBA", "WEBP"),
    "lossless alpha webp": image(140, 130, "RGBA", "WEBP", lossless=True),
    "turned webp": image(250, 130, kind="WEBP", orientation=6), "gif": image(123, 45, "P", "GIF"),
    "grey gif": image(45, 123, "L", "GIF"), "turned by xmp": xmp(310, 120),
    "bmp": image(60, 61, kind="BMP"), "tiff": image(60, 62, kind="TIFF"),
}


def text(content):
    return {"type": "text", "text": content}


def shown(name, **more):
    return {"type": "image_url", "image_url": {"url": "image:" + name}, **more}


def user(*parts):
    return {"role": "user", "content": list(parts)}


def cases(model):
    for name in IMAGES:
        yield name, {"messages": [user(text("What is this?"), shown(name))]}
    a, b, c = shown("png"), shown("turned jpeg"), shown("alpha")
    for note, messages in {
        "image first": [user(a, text("What?"))],
        "only an image": [user(a)],
        "between texts": [user(text("before"), a, text("after"), b, text("end"))],
        "side by side": [user(a, b, c)],
        "the same twice": [user(a, a)],
        "bare texts": [user("bare", "", a, "more")],
        "a conversation": [{"role": "system", "content": "Be short."}, user(a, text("One?")),
                           {"role": "assistant", "content": "Yes."}, user(text("Two?"), b)],
        "in system and tool messages": [
            {"role": "system", "content": [text("s"), a]}, user(text("u")),
            {"role": "assistant", "content": None, "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "1", "content": [text("t"), b]}],
        "with a uuid": [user(text("x"), shown("large", uuid="client-1"), shown("png", uuid=7))],
        "null uuid": [user(shown("png", uuid=None), text("x"))],
        "input image": [user(text("x"), {"type": "input_image", "image_url": "image:png",
                                         "detail": "auto"})],
        "detail": [user(text("x"), {"type": "image_url", "image_url": {
            "url": "image:png", "detail": "high"}})],
        "line feeds before": [user(text("one\n"), a, text("two\n\n"), b, text("x"))],
        "line feeds between": [user(a, text("\n\n\n"), b)],
        "line feeds after": [user(text("x"), a, text("\nafter"))],
        "two line feeds after": [user(text("x"), a, text("\n\nafter"))],
        "placeholders in text": [user(text(
            "<|vision_start|><|image_pad|><|vision_end|> <image> [IMG] <start_of_image>"), a)],
        "placeholders after": [user(a, text("<|image_pad|> <image> [IMG] <start_of_image>"))],
        "soft tokens in text": [user(text("<image_soft_token> [IMG_BREAK] [IMG_END]"), a)],
    }.items():
        yield note, {"messages": messages}
    yield "continued", {"messages": [user(a, text("Go on")), {"role": "assistant", "content":
                                                               "It is"}],
                        "add_generation_prompt": False, "continue_final_message": True}
    yield "special tokens", {"messages": [user(a, text("x"))], "add_special_tokens": True}
    yield "empty options", {"messages": [user(a, text("x"))], "mm_processor_kwargs": {}}


def render(url, body):
    request = urllib.request.Request(url + "/v1/chat/completions/render", json.dumps(body).encode(),
                                     {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()[:200]


def filled(value):
    """The same with the images that it names."""
    if isinstance(value, dict):
        return {key: filled(item) for key, item in value.items()}
    if isinstance(value, list):
        return [filled(item) for item in value]
    if isinstance(value, str) and value.startswith("image:"):
        return IMAGES[value.removeprefix("image:")]
    return value


def write(model, directory, render):
    """Asks `render(body)` for each case of a model."""
    with open(f"{directory}/images.json", "w") as out:
        json.dump(IMAGES, out, indent=1)
        out.write("\n")
    with open(f"{directory}/{model}.jsonl", "w") as out:
        for note, fields in cases(model):
            body = {"model": model, **fields}
            status, answer = render(filled(body))
            line = {"model": model, "note": note, "request": body, "status": status}
            if status == 200:
                features = answer["features"]
                line["token_ids"] = answer["token_ids"]
                line["mm_hashes"] = features["mm_hashes"]["image"]
                line["mm_placeholders"] = [
                    [place["offset"], place["length"]]
                    for place in features["mm_placeholders"]["image"]]
            else:
                line["error"] = answer
            out.write(json.dumps(line, ensure_ascii=False) + "\n")
            print(model, note, status, file=sys.stderr)


if __name__ == "__main__":
    URL, MODEL, DIRECTORY = sys.argv[1:]
    write(MODEL, DIRECTORY, lambda body: render(URL, body))
