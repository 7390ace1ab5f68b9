"""What a chat template may not do, however it is spelled; what it may do is in ``templates``."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2.exceptions import SecurityError

from freehold.models.scan.conversations import CONVERSATIONS
from freehold.models.scan.sandbox import LONGEST_OUTPUT, LONGEST_TEMPLATE, Raised, render
from freehold.models.scan.template import FILTERS, FUNCTIONS, TESTS, looks_like_one, objections
from tests.templates import TEMPLATES


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_of_known_families_may_all_they_do(name: str) -> None:
    assert objections(TEMPLATES[name]) == []
    rendered = 0
    for values in CONVERSATIONS:
        try:
            rendered += bool(render(TEMPLATES[name], values))
        except (Raised, SecurityError):  # what changes a list goes no further here
            continue
    assert rendered >= 2 or "append" in TEMPLATES[name]


REACHES = {
    "attribute": "{{ ''.__class__ }}",
    "subscript": "{{ ''['__class__'] }}",
    "escaped": r"{{ ''['\x5f\x5fclass\x5f\x5f'] }}",
    "unicode": r"{{ ''['\u005f\u005fclass\u005f\u005f'] }}",
    "concatenated": "{{ ''['__cl' ~ 'ass__'] }}",
    "added": "{{ ''['__cl' + 'ass__'] }}",
    "repeated": "{{ ''['_' * 2 ~ 'class' ~ '_' * 2] }}",
    "reversed": "{{ ''['__ssalc__'[::-1]] }}",
    "reversed by a filter": "{{ ''['__ssalc__'|reverse] }}",
    "lowered": "{{ ''['__CLASS__'|lower] }}",
    "joined": "{{ ''[['__cl', 'ass__']|join] }}",
    "joined by a method": "{{ ''[''.join(['__cl', 'ass__'])] }}",
    "replaced": "{{ ''['xxclassxx'|replace('x', '_')] }}",
    "replaced by a method": "{{ ''['xxclassxx'.replace('x', '_')] }}",
    "formatted by a filter": "{{ ''['%s%s'|format('__cl', 'ass__')] }}",
    "formatted by percent": "{{ ''['%sclass__' % '__'] }}",
    "by a variable": "{% set a = '__class__' %}{{ ''[a] }}",
    "by two variables": "{% set a = '__' %}{% set b = a ~ 'class' ~ a %}{{ ''[b] }}",
    "by a namespace": "{% set n = namespace() %}{% set n.a = '__cl' ~ 'ass__' %}{{ ''[n.a] }}",
    "by a loop": "{% for c in ['__class__'] %}{{ ''[c] }}{% endfor %}",
    "by a block": "{% set a %}__class__{% endset %}{{ ''[a] }}",
    "by a condition": "{{ ''['a' if x else '__class__'] }}",
    "from json": "{{ ''['\"a\"'|from_json] }}",
    "attr": "{{ ''|attr('x') }}",
    "map by attribute": "{{ messages|map(attribute='__class__')|list }}",
    "map by a path": "{{ messages|map(attribute='a.__class__')|list }}",
    "map attr": "{{ messages|map('attr', 'x')|list }}",
    "select by attribute": "{{ messages|selectattr('__class__')|list }}",
    "sort by attribute": "{{ messages|sort(attribute='__class__') }}",
    "mro": "{{ x.mro() }}",
    "frame": "{{ x.gi_frame }}",
    "globals of a function": "{{ raise_exception.func_globals }}",
}
OTHERS = {
    "a text of any length": "{% if messages|length > 9 %}{{ 'x' * 99999999999 }}{% endif %}",
    "a number by way of a name": "{% set n = 99999999999 %}{% for a in range(n) %}{% endfor %}",
    "a wide number": "{{ '%99999999999d' % 1 }}",
    "a wide form": "{{ '{:>99999999999}'.format(1) }}",
    "a wide indent": "{{ 'x'|indent(99999999999) }}",
    "format": "{{ '{0.a}'.format(x) }}",
    "format by index": "{{ '{0[a]}'.format(x) }}",
    "format within a format": "{{ '{:{0.a}}'.format(x) }}",
    "format of a variable": "{{ x.format(y) }}",
    "format that is none": "{{ '{'.format(y) }}",
    "format_map": "{{ '{a.b}'.format_map(x) }}",
    "import": "{% import 'x' as y %}",
    "from": "{% from 'x' import y %}",
    "include": "{% include '/etc/passwd' %}",
    "extends": "{% extends 'x' %}",
    "block": "{% block a %}{% endblock %}{{ 1 }}",
    "itself": "{{ self._TemplateReference__context }}",
    "cycler": "{{ cycler('a') }}",
    "joiner": "{{ joiner() }}",
    "lipsum": "{{ lipsum() }}",
    "config": "{{ config.items() }}",
    "request": "{{ request.args.x }}",
    "flask": "{{ url_for('a') }}",
    "unknown function": "{{ open('/etc/passwd') }}",
    "unknown method": "{{ x.popen('id') }}",
    "call of a call": "{{ x.get('a')() }}",
    "call of an item": "{{ x['a']() }}",
    "unknown filter": "{{ x|shell }}",
    "filter by name": "{{ x|map('shell')|list }}",
    "unknown test": "{{ x is shell }}",
    "power": "{{ 9 ** 9 ** 9 }}",
    "range": "{% for i in range(99999999) %}{% endfor %}",
    "range of a product": "{% for i in range(9999 * 9999) %}{% endfor %}",
    "debug": "{% debug %}",
    "unfinished": "{{ x",
    "too deep": "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
    "too long": "{{ 1 }}" + "x" * LONGEST_TEMPLATE,
}


@pytest.mark.parametrize("name", REACHES)
def test_reaching_inside_is_refused_however_it_is_spelled(name: str) -> None:
    assert objections("{{ messages[0].content }}" + REACHES[name])


@pytest.mark.parametrize("name", OTHERS)
def test_what_no_template_needs_is_refused(name: str) -> None:
    assert objections(OTHERS[name])


@pytest.mark.parametrize(
    "text",
    ["{{ messages[loop.index0 - 1] }}", "{{ messages[loop.index0 + 1] }}", "{{ messages[-1] }}",
     "{{ messages[messages|length - 1] }}", "{{ x[y] }}", "{{ x[y.z] }}", "{{ x[1:] }}",
     "{% set i = a - 1 %}{{ x[i] }}", "{% set ns.i = ns.i + 1 %}{{ x[ns.i] }}",
     "{% for k in x %}{{ x[k] }}{% endfor %}", "{{ x['a_b'] }}", "{{ '__' ~ x ~ '__' }}",
     "{{ x|replace('_', ' ') }}", "{{ x.items()|list }}",
     "{{ '{} of {0} {a:>8}'.format(1, a=2) }}", "{{ x|from_json }}", "{{ {'a': 1}.a }}"],
)  # fmt: skip
def test_ordinary_ways_are_not(text: str) -> None:
    assert objections(text) == []


def test_the_lists_name_what_there_is() -> None:
    from freehold.models.scan.sandbox import sandbox

    made = sandbox()
    assert set(made.filters) - {"attr", "xmlattr", "pprint", "random", "filesizeformat", "format",
                                "center", "urlize"} >= FILTERS - {"select"}  # fmt: skip
    assert set(made.tests) >= TESTS
    assert FUNCTIONS - {"caller"} <= set(made.globals)


def test_the_sandbox_holds_without_the_rules() -> None:
    for text in ("{{ ''.__class__.__mro__ }}", "{{ ''|attr('__class__') }}",
                 "{{ '{0.__class__}'.format('') }}"):  # fmt: skip
        with pytest.raises(SecurityError):
            render(text + "{{ ''.__class__.x }}", {})
    with pytest.raises(SecurityError):
        render("{{ messages.append(1) }}", {"messages": []})
    with pytest.raises(MemoryError):
        render("{% for i in range(9000) %}{{ 'x' * 9000 }}{% endfor %}", {})
    assert len(render("{{ 'x' * n }}", {"n": LONGEST_OUTPUT})) == LONGEST_OUTPUT


def test_what_looks_like_one() -> None:
    assert looks_like_one("a {{ b }}")
    assert looks_like_one("{% if a %}")
    assert not looks_like_one("{ a } %}")


@given(st.text(alphabet="{}%|.[]'_~+ acls()=\n", max_size=60))
def test_no_text_does_more_than_be_refused(text: str) -> None:
    found = objections(text)
    if not found:
        assert "__class__" not in text or "{" not in text or "{{" not in text


def test_time_to_refuse_is_bounded() -> None:
    import time

    begun = time.monotonic()
    objections("{{ " + "~".join(["'__a'"] * 2000) + " }}")
    objections("".join(f"{{% set a{n} = a{n - 1} ~ 'x' ~ a{n - 1} %}}" for n in range(1, 1500)))
    objections("{{ x" + "|lower" * 3000 + " }}")
    assert time.monotonic() - begun < 20
