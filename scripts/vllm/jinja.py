"""Random chat templates that use all of Jinja."""

VARIABLES = {
    "s": "Hello World", "u": "  aß🙂 é\u0301 ǆ İ ﬁ\u00a0x\n", "e": "", "m": "one\ntwo\r\n\nthree \n", "h": "a<b>&\"c'd\\e", "c": "b,a,,c",
    "i": 7, "n": -3, "z": 0, "f": 2.5, "g": 1e16, "t": True, "l": [3, 1, 2], "w": ["b", "A", "c", "a"], "k": [],
    "d": {"b": 1, "A": [1, None, True], "items": "it", "c": {"x": 1.0, "é": "ü"}}, "o": {},
    "r": [{"n": "x", "v": 2, "a": {"b": 1}}, {"n": "Y", "v": 1, "a": {"b": 2}}, {"n": "x", "v": 3}], "q": [1, "1", 1.0, None, False, "a", [1], {"a": 1}],
    "p": [[1, 2], [3, 4]], "j": "{\"a\": [1, 2]}", "y": "2024-01-02", "x": 255, "b": False, "lone": None and 0 or {"null": None},
}
TEXTS, NUMBERS, LISTS, DICTS = "suemhcjy", "inzfgx", "lwkrqp", "do"


class Jinja:
    def __init__(self, random):
        self.random = random
        self.depth = 0
        self.scope = []

    def one(self, *items):
        return self.random.choice(items)

    def text(self):
        r = self.random
        self.depth += 1
        try:
            if self.depth > 3 or r.random() < 0.45:
                return self.one(*TEXTS, "'a b'", "'é'", "\"it's\"", "'x\\ny'", "''", "d['items']", "r[0].n", "d.c.é", "messages[0].content", "messages[0]['role']", "u[2]", "'\\t'", "'%s'")
            t = self.text
            k = r.randrange(34)
            if k == 0: return f"({t()} + {t()})"
            if k == 1: return f"({self.any()} ~ {self.any()})"
            if k == 2: return f"({t()} * {self.one('2', '0', 'i', '-1')})"
            if k == 3: return f"{t()}[{self.slice()}]"
            if k == 4: return f"{t()}.{self.one('strip()', 'lstrip()', 'rstrip()', 'upper()', 'lower()', 'title()', 'capitalize()', 'swapcase()', 'casefold()')}"
            if k == 5: return f"{t()}.strip({self.chars()})"
            if k == 6: return f"{t()}.{self.one('lstrip', 'rstrip')}({self.chars()})"
            if k == 7: return f"{t()}.replace({t()}, {t()}{self.one('', ', 1', ', count=1', ', -1')})"
            if k == 8: return f"{t()}.split({self.sep()})[{self.one('0', '-1', '1', '5')}]"
            if k == 9: return f"{t()}.join({self.one('w', 'c.split()', '[]', '[`a`]', 'l', 's', 'w|map(`upper`)')})"
            if k == 10: return f"{t()}|{self.one('upper', 'lower', 'title', 'capitalize', 'trim', 'string', 'e', 'escape', 'safe', 'striptags', 'urlencode', 'forceescape', 'urlize')}"
            if k == 11: return f"{t()}|replace({t()}, {t()}{self.one('', ', 1')})"
            if k == 12: return f"{t()}|trim({self.chars()})"
            if k == 13: return f"{t()}|indent({self.one('', '2', 'width=3', '2, true', '2, first=true, blank=true', '`> `')})"
            if k == 14: return f"{t()}|truncate({self.one('', '5', '5, true', '5, true, ``', '9, false, `…`', '5, leeway=0')})"
            if k == 15: return f"{t()}|wordwrap({self.one('', '5', '5, false', '7, wrapstring=`|`', '5, break_long_words=false')})"
            if k == 16: return f"{t()}|center({self.one('', '9', '20')})"
            if k == 17: return f"{self.any()}|tojson{self.one('', '', '()', '(indent=2)', '(ensure_ascii=true)', '(separators=(`,`, `:`))', '(sort_keys=true)', '(2)', '(indent=4, sort_keys=true)')}"
            if k == 18: return f"{self.any()}|string"
            if k == 19: return f"{self.list()}|join({self.one('', '`, `', '`-`, attribute=`n`', 'd=`+`')})"
            if k == 20: return f"{self.any()}|default({t()}{self.one('', ', true', ', boolean=true')})"
            if k == 21: return f"({t()} if {self.test()} else {t()})"
            if k == 22: return f"({t()} if {self.test()})"
            if k == 23: return f"{self.one(repr('%s-%s'), repr('%d|%5.2f'), repr('%s'), repr('%05d %x'))}|format({self.any()}, {self.any()})"
            if k == 24: return f"({self.one(repr('%s'), repr('%s and %s'), repr('%d%%'), repr('%.2f'), repr('%r'))} % {self.one('s', '(s, i)', 'i', 'f', '(i,)', 'l', 'd')})"
            if k == 25: return f"{self.one(repr('{}-{}'), repr('{0} {1} {0}'), repr('{:>8}|{:05.1f}'), repr('{a}'), repr('{!r}'))}.format({self.any()}, {self.any()}{self.one('', ', a=1')})"
            if k == 26: return f"{t()}.{self.one('center', 'ljust', 'rjust')}({self.one('9', '9, `*`', '1')})"
            if k == 27: return f"{t()}.{self.one('removeprefix', 'removesuffix')}({t()})"
            if k == 28: return f"{t()}.{self.one('partition', 'rpartition')}({self.one(repr(' '), repr(','), repr('o'))})[{self.one('0', '1', '2', '-1')}]"
            if k == 29: return f"{t()}.{self.one('zfill(5)', 'expandtabs(4)', 'encode()', 'translate({})')}"
            if k == 30: return f"{t()}|{self.one('first', 'last', 'reverse', 'random|length|string')}"
            if k == 31: return f"{self.number()}|{self.one('round', 'filesizeformat', 'abs')}|string"
            if k == 32: return f"strftime_now({self.one(repr('%Y-%m-%d'), repr('%d %B %Y'), repr('%H:%M %p'))})"
            return f"{t()}|replace({t()}, '')"
        finally:
            self.depth -= 1

    def chars(self):
        return self.one("'\\n'", "' '", "'Hdo'", "none", "''", "' \\n'", "'é'")

    def sep(self):
        return self.one("", "' '", "','", "'o'", "none, 1", "' ', 1", "',', maxsplit=1", "'</think>'", "sep=','")

    def slice(self):
        n = lambda: self.one("", "", "0", "1", "-1", "2", "-2", "9", "i")
        return self.one(f"{n()}:{n()}", f"{n()}:{n()}:{self.one('1', '2', '-1', '-2', '')}", ":", "::-1", "1:", ":-1")

    def number(self):
        r = self.random
        self.depth += 1
        try:
            if self.depth > 3 or r.random() < 0.4:
                return self.one(*NUMBERS, "1", "0", "3", "1.5", "-2", "10", "1e3", "1_000", "t")
            n = self.number
            k = r.randrange(14)
            if k < 4: return f"({n()} {self.one('+', '-', '*', '/', '//', '%')} {n()})"
            if k == 4: return f"({n()} ** {self.one('2', '0', '3', '0.5', '-1')})"
            if k == 5: return f"(-{n()})"
            if k == 6: return f"{self.one(self.text(), self.list(), self.dict())}|{self.one('length', 'count')}"
            if k == 7: return f"{self.one(self.text(), n(), repr('12'), repr(' 3.9 '), repr('0x1f'), 'none', repr('x'))}|{self.one('int', 'float', 'int(5)', 'int(default=9)', 'float(1.5)', 'int(0, 16)')}"
            if k == 8: return f"{n()}|{self.one('round', 'round(1)', 'abs', 'round(1, `floor`)', 'round(0, `ceil`)', 'int')}"
            if k == 9: return f"{self.one('l', '[1, 2.5]', 'k', 'r|map(attribute=`v`)')}|{self.one('sum', 'max', 'min', 'first', 'last', 'sum(start=2)')}"
            if k == 10: return f"{self.text()}.{self.one('find', 'count', 'rfind', 'index')}({self.one(repr('o'), repr('zz'), repr(' '))})"
            if k == 11: return f"{self.list()}.{self.one('index', 'count')}({self.one('1', repr('a'))})"
            if k == 12: return f"{self.text()}|wordcount"
            return f"(+{n()})" if r.random() < 0.1 else f"r|sum(attribute='v')"
        finally:
            self.depth -= 1

    def list(self):
        r = self.random
        self.depth += 1
        try:
            if self.depth > 3 or r.random() < 0.4:
                return self.one(*LISTS, "[1, 'a']", "(1, 2)", "[]", "range(3)", "range(5, 0, -2)", "['x', none, true]", "messages", "('a',)")
            l = self.list
            k = r.randrange(30)
            if k == 0: return f"({l()} + {l()})"
            if k == 1: return f"{l()}[{self.slice()}]"
            if k == 2: return f"{self.text()}.{self.one('split()', 'splitlines()', 'splitlines(true)', 'rsplit(none, 1)')}"
            if k == 3: return f"{self.text()}.{self.one('split', 'rsplit')}({self.sep()})"
            if k == 4: return f"{l()}|{self.one('list', 'reverse|list', 'sort', 'unique|list', 'sort(reverse=true)', 'first', 'last')}"
            if k == 5: return f"{self.one('w', 'c.split(`,`)')}|{self.one('sort', 'sort(case_sensitive=true)', 'unique|list', 'unique(case_sensitive=true)|list', 'sort(true)', 'map(`upper`)|list', 'map(`length`)|list', 'select(`eq`, `a`)|list', 'reject(`in`, [`a`])|list')}"
            if k == 6: return f"r|{self.one('map(attribute=`n`)|list', 'map(attribute=`a.b`, default=0)|list', 'map(attribute=`a.b`)|list', 'selectattr(`a`)|list', 'selectattr(`v`, `gt`, 1)|list', 'rejectattr(`n`, `equalto`, `x`)|list', 'selectattr(`a`, `defined`)|map(attribute=`v`)|list', 'sort(attribute=`v`)', 'sort(attribute=`n,v`)', 'groupby(`n`)', 'groupby(`n`)|map(`first`)|list', 'groupby(`n`, case_sensitive=true)|list', 'unique(attribute=`n`)|list', 'groupby(`a.b`, default=0)', 'map(`attr`, `n`)|list', 'map(`items`)|map(`list`)|list')}"
            if k == 7: return f"{l()}|{self.one('batch(2)|list', 'batch(2, 0)|list', 'slice(2)|list', 'slice(2, 9)|list', 'slice(3)|map(`length`)|list')}"
            if k == 8: return f"{self.dict()}|{self.one('items|list', 'list', 'dictsort', 'dictsort(true)', 'dictsort(by=`value`)', 'dictsort(false, `key`, true)')}"
            if k == 9: return f"{self.dict()}.{self.one('items()|list', 'keys()|list', 'values()|list', 'items()', 'keys()', 'values()')}"
            if k == 10: return f"{l()}|select({self.one('', '`string`', '`number`', '`none`', '`defined`', '`odd`', '`mapping`', '`gt`, 1')})|list"
            if k == 11: return f"{l()}|reject({self.one('', '`string`', '`number`', '`none`')})|list"
            if k == 12: return f"{l()}|map({self.one('`string`', '`int`', '`tojson`', '`upper`', '`default`, `z`')})|list"
            if k == 13: return f"{self.text()}|list"
            if k == 14: return f"({l()} * {self.one('2', '0')})"
            if k == 15: return f"[{self.any()}, {self.any()}]"
            if k == 16: return f"({self.any()}, {self.any()})"
            if k == 17: return f"({l()} if {self.test()} else {l()})"
            return l()
        finally:
            self.depth -= 1

    def dict(self):
        return self.one(*DICTS, "d.c", "r[0]", "{'a': 1, 'b': [2]}", "{1: 'x', none: 2}", "dict(a=1, b='x')", "messages[0]", "d|dict" if self.random.random() < 0.1 else "d", "{}", "dict(d, z=1)", "lone")

    def any(self):
        k = self.random.randrange(16)
        if k < 5: return self.text()
        if k < 8: return self.number()
        if k < 10: return self.list()
        if k < 12: return self.dict()
        return self.one("none", "true", "false", "missing", "d.missing", "d.get('zz')", "d.get('b', 3)", "d['A']", "d.A[1]", "r[1].v", "q[3]", "lone.null", "missing.x" if self.random.random() < 0.1 else "o.x", "(1, 'a')", "d.items", "f", "g", "-0.0", "1e-7", "100000000000000000000", "namespace(a=1).a", "l[9]", "self" if self.random.random() < 0.05 else "i", *self.scope)

    def test(self):
        r = self.random
        self.depth += 1
        try:
            k = r.randrange(14)
            if self.depth > 3: k = r.randrange(3)
            if k == 0: return self.one("t", "b", "s", "e", "l", "k", "z", "i", "missing", "none", "d", "o")
            if k == 1: return f"{self.any()} is {self.one('', 'not ')}{self.one('defined', 'undefined', 'none', 'string', 'number', 'integer', 'float', 'boolean', 'mapping', 'sequence', 'iterable', 'callable', 'true', 'false', 'lower', 'upper')}"
            if k == 2: return f"{self.number()} is {self.one('odd', 'even', 'divisibleby 2', 'divisibleby(3)', 'gt 2', 'lt(2)', 'ge 1', 'eq 7', 'ne 7', 'sameas 7', 'in [1, 7]')}"
            if k == 3: return f"{self.number()} {self.one('<', '>', '<=', '>=', '==', '!=')} {self.number()}"
            if k == 4: return f"{self.text()} {self.one('==', '!=', '<', '>')} {self.text()}"
            if k == 5: return f"{self.any()} == {self.any()}"
            if k == 6: return f"{self.text()} {self.one('in', 'not in')} {self.text()}"
            if k == 7: return f"{self.any()} {self.one('in', 'not in')} {self.one(self.list(), self.dict())}"
            if k == 8: return f"({self.test()} {self.one('and', 'or')} {self.test()})"
            if k == 9: return f"not {self.test()}"
            if k == 10: return f"{self.text()}.{self.one('startswith', 'endswith')}({self.one(repr('H'), '(`H`, `d`)', self.text())})"
            if k == 11: return f"{self.text()}.{self.one('isdigit', 'isalpha', 'isspace', 'isupper', 'islower', 'isalnum', 'isnumeric', 'istitle', 'isdecimal', 'isascii')}()"
            if k == 12: return f"1 < {self.number()} < 5"
            return f"{self.list()} == {self.list()}"
        finally:
            self.depth -= 1

    def tag(self, body):
        return self.one("{%", "{%", "{%-", "{%+") + f" {body} " + self.one("%}", "%}", "-%}", "+%}")

    def space(self):
        return self.one("", "", "\n", " ", "\n  ", "x", "\n\n", " y ", "  \n")

    def block(self, depth=0):
        r = self.random
        out = ""
        for _ in range(r.randint(1, 3)):
            out += self.space() + self.statement(depth) + self.space()
        return out

    def emit(self, value=None):
        value = value or self.one(self.text, self.number, self.list, self.any, self.any, self.test, self.dict)()
        return self.one("{{", "{{", "{{-") + f" {value} " + self.one("}}", "}}", "-}}")

    def statement(self, depth):
        r = self.random
        k = r.randrange(26 if depth < 3 else 8)
        if k < 8:
            return self.emit()
        if k < 11:
            out = self.tag(f"if {self.test()}") + self.block(depth + 1)
            if r.random() < 0.4: out += self.tag(f"elif {self.test()}") + self.block(depth + 1)
            if r.random() < 0.5: out += self.tag("else") + self.block(depth + 1)
            return out + self.tag("endif")
        if k < 15:
            name = self.one("a", "v", "item")
            head, names = self.one((f"{name} in {self.list()}", [name]), (f"k1, v1 in {self.dict()}.items()", ["k1", "v1"]), (f"{name} in {self.dict()}", [name]), (f"k1, v1 in {self.dict()}|dictsort", ["k1", "v1"]),
                                   (f"{name} in {self.text()}", [name]), (f"g1, l1 in r|groupby('n')", ["g1", "l1"]), (f"{name} in {self.any()}", [name]), ("a, v in p", ["a", "v"]))
            if r.random() < 0.2: head += f" if {self.test()}"
            self.scope += names + ["loop.index", "loop.index0", "loop.revindex", "loop.revindex0", "loop.first", "loop.last", "loop.length", "loop.depth", "loop.depth0", "loop.previtem", "loop.nextitem", "loop.cycle('x', 'y')", f"loop.changed({names[0]})"]
            body = self.block(depth + 1)
            if r.random() < 0.2: body += self.tag("if " + self.one("loop.first", "loop.index > 2", self.test())) + self.one("{% continue %}", "{% break %}") + self.tag("endif") + self.block(depth + 1)
            del self.scope[-len(names) - 13:]
            out = self.tag("for " + head) + body
            if r.random() < 0.3: out += self.tag("else") + self.block(depth + 1)
            return out + self.tag("endfor")
        if k == 15:
            name = self.one("sv", "i", "s")
            return self.tag(f"set {name} = {self.any()}") + self.emit(name)
        if k == 16:
            return self.tag("set sb" + self.one("", " | upper", " | trim | length")) + self.block(depth + 1) + self.tag("endset") + self.emit("sb")
        if k == 17:
            return "{% set ns = namespace(a=0, b=[]) %}" + self.tag(f"for a in {self.list()}") + "{% set ns.a = ns.a + 1 %}{% set ns.b = ns.b + [a] %}" + self.tag("endfor") + self.emit(self.one("ns.a", "ns.b", "ns.c is defined", "ns.b|length"))
        if k == 18:
            return "{% macro mm(a, b='d', c=a) %}" + self.one("{{ a }}|{{ b }}|{{ c }}", "[{{ a ~ b }}]{{ varargs }}", "{{ kwargs }}{{ caller is defined }}", "{% if a is string %}{{ mm(1) }}{% endif %}{{ b }}") + "{% endmacro %}" + self.emit(self.one("mm('x')", "mm(1, 2)", "mm(b=3)", "mm('x', c=1)", "mm()", "mm('x')|upper", "mm.name", "mm('a', 'b', 'c', 'd')", "mm('x').strip()", "mm('q', z=1)"))
        if k == 19:
            return "{% macro cm(x) %}<{{ caller() }}{{ x }}>{% endmacro %}" + self.tag("call cm(" + self.any() + ")") + self.block(depth + 1) + self.tag("endcall")
        if k == 20:
            return self.tag(f"for a in [1, [2, [3]]] recursive") + "{% if a is iterable %}({{ loop(a) }}){% else %}{{ a }}.{{ loop.depth }}{% endif %}" + self.tag("endfor")
        if k == 21:
            return self.tag(f"with wa = {self.any()}, wb = 2") + "{{ wa }}{{ wb }}" + self.block(depth + 1) + self.tag("endwith")
        if k == 22:
            return self.tag("filter " + self.one("upper", "trim", "replace('a', 'b')", "indent(2)", "upper | trim")) + self.block(depth + 1) + self.tag("endfilter")
        if k == 23:
            return "{#" + self.one("", "-") + " note " + self.one("", "-") + "#}" + self.one("", "{% raw %}{{ x }}{% endraw %}", "{% generation %}" + self.emit() + "{% endgeneration %}")
        if k == 24:
            return self.tag("set a, b = " + self.one("1, 2", "p[0]", "(i, s)", "[1, 2]")) + "{{ a }}{{ b }}"
        return self.tag(f"if {self.test()}") + "{{ raise_exception('no') }}" + self.tag("endif") if r.random() < 0.2 else "{% do l %}" if r.random() < 0.1 else self.emit()

    def template(self):
        # Within these literals a quote would have to be escaped.
        return self.block().replace("`", '"')
