"""A second set of known faults, by another hand than `faulty_data`: made from the kinds alone, before any rule was read.

`corpus(seed, style)` writes a file of clean rows (see independent_text) with about 430 faults of 23 kinds among them, in
the forms in which strangers meet them: a near duplicate is a typo, another order of words or other casing; a question
leaks in capitals; an IBAN has spaces, a key stands in a connection string; mojibake comes from eight encodings; a line is
cut in the middle. Every fault knows its line, its kind and the line of its clean partner where it has one. `score`
compares that with the findings of a check.
"""

# ruff: noqa: E501  (the sentences are data, one to a line)

import json
import string
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from random import Random
from typing import NamedTuple

from independent_text import Pair, clean_pairs

Row = dict[str, object]


class Fault(NamedTuple):
    """kind: what is wrong; line: where, from 1; partner: the clean line that it repeats or contradicts, or 0."""

    kind: str
    line: int
    partner: int = 0


class Corpus(NamedTuple):
    """data: the file's bytes; faults: what was planted; clean: the lines that are none; suite: items that must not be trained on."""

    data: bytes
    faults: list[Fault]
    clean: frozenset[int]
    suite: list[Pair]


class Score(NamedTuple):
    """found and planted per kind; the lines of clean rows that were accused, with what they were accused of."""

    found: Counter[str]
    planted: Counter[str]
    missed: list[Fault]
    false_alarms: dict[int, list[str]]

    @property
    def recall(self) -> float:
        return sum(self.found.values()) / sum(self.planted.values())


COMPANIES = ["Northwind", "Hallmoor", "Bexley & Sons", "Quillfeather", "Ostrava Tools"]
NAMES = ["Maria Huber", "Tom Okafor", "Ingrid Solberg", "Paulo Reis", "Wei Zhang", "Fatima Alaoui"]


def luhn(random: Random, prefix: str, length: int) -> str:
    """A card number with a right check digit."""
    body = prefix + "".join(random.choices(string.digits, k=length - len(prefix) - 1))
    total = sum(
        sum(divmod(int(digit) * (2 if place % 2 == 0 else 1), 10)) for place, digit in enumerate(reversed(body))
    )
    return body + str(-total % 10)


def iban(country: str, account: str) -> str:
    """An account number with right check digits (ISO 13616)."""
    plain = "".join(str(int(letter, 36)) for letter in account + country + "00")
    return f"{country}{98 - int(plain) % 97:02d}{account}"


def phones(random: Random) -> str:
    d = lambda n: "".join(random.choices("23456789", k=n))  # noqa: E731
    return random.choice(
        [
            f"+49 30 {d(7)}",
            f"(212) {d(3)}-{d(4)}",
            f"+44 20 7{d(3)} {d(4)}",
            f"+33 6 {d(2)} {d(2)} {d(2)} {d(2)}",
            f"0171 / {d(7)}",
            f"+1-415-{d(3)}-{d(4)}",
            f"415.{d(3)}.{d(4)}",
            f"0041 44 {d(3)} {d(2)} {d(2)}",
        ]
    )


def ibans(random: Random) -> str:
    digits = lambda n: "".join(random.choices(string.digits, k=n))  # noqa: E731
    plain = random.choice(
        [
            iban("DE", digits(18)),
            iban("GB", "NWBK" + digits(14)),
            iban("NL", "ABNA" + digits(10)),
            iban("FR", digits(23)),
            iban("AT", digits(16)),
        ]
    )
    return random.choice([plain, " ".join(plain[i : i + 4] for i in range(0, len(plain), 4)), plain.lower()])


def cards(random: Random) -> str:
    number = random.choice(
        [luhn(random, "4" + random.choice("1234569"), 16), luhn(random, "53", 16), luhn(random, "37", 15)]
    )
    return random.choice(
        [
            number,
            " ".join(number[i : i + 4] for i in range(0, 16, 4)),
            "-".join(number[i : i + 4] for i in range(0, 16, 4)),
        ]
    )


def emails(random: Random) -> str:
    first, last = random.choice(NAMES).lower().split()
    return random.choice(
        [
            f"{first}.{last}{random.randint(1, 99)}@gmail.com",
            f"{first[0]}{last}@hallmoor-tools.co.uk",
            f"{last}_{first}@uni-graz.at",
            f"{first.upper()}@OSTRAVA.CZ",
            f"{first}+orders@{last}.io",
        ]
    )


def social(random: Random) -> str:
    return f"{random.randint(100, 665)}-{random.randint(11, 88)}-{random.randint(1001, 9899)}"


def keys(random: Random) -> str:
    mixed = lambda n: "".join(random.choices(string.ascii_letters + string.digits, k=n))  # noqa: E731
    upper = lambda n: "".join(random.choices(string.ascii_uppercase + "234567", k=n))  # noqa: E731
    return random.choice(
        [
            f"AKIA{upper(16)}",
            f"aws_secret_access_key = {mixed(40)}",
            f"ghp_{mixed(36)}",
            f"glpat-{mixed(20)}",
            f"sk_live_{mixed(24)}",
            f"sk-proj-{mixed(48)}",
            f"xoxb-{random.randint(10**11, 10**12 - 1)}-{random.randint(10**11, 10**12 - 1)}-{mixed(24)}",
            f"AIza{mixed(35)}",
            f"-----BEGIN RSA PRIVATE KEY-----\nMIIEow{mixed(58)}\n{mixed(64)}\n-----END RSA PRIVATE KEY-----",
            f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI{mixed(20)}.{mixed(43)}",
            f"postgres://shop:{mixed(12)}@db.internal:5432/orders",
            f"Authorization: Bearer {mixed(40)}",
            f"export DB_PASSWORD='{mixed(14)}'",
            f"hf_{mixed(34)}",
        ]
    )


PERSONAL: dict[str, tuple[Callable[[Random], str], list[str]]] = {
    "phone": (
        phones,
        ["Call {name} at {x} before noon.", "My number is {x}, ask for {name}.", "Reachable under {x} (mobile)."],
    ),
    "iban": (
        ibans,
        ["Please transfer the refund to {x}, account of {name}.", "IBAN: {x}", "The money goes to {name}, {x}."],
    ),
    "card": (
        cards,
        ["It was charged to card {x}, valid until 09/29.", "Card number {x}, holder {name}.", "{name} paid with {x}."],
    ),
    "ssn": (social, ["{name}, SSN {x}, was admitted on Monday.", "Her social security number is {x}.", "ssn: {x}"]),
    "e-mail": (emails, ["Write to {x} and mention {name}.", "Contact: {x}", "The customer ({x}) asked twice."]),
    "secret": (keys, ["Use this for the test system:\n{x}", "{x}", "I pasted my settings, does that look right? {x}"]),
}
PLACEHOLDERS = [
    "TODO: write the answer", "TBD", "Lorem ipsum dolor sit amet, consectetur adipiscing elit.", "Dear {{customer_name}}, thank you for your message.",
    "Hello [INSERT NAME HERE], your order has shipped.", "Welcome to <YOUR COMPANY NAME>, how can we help?", "xxxxx", "FIXME ask Anna about this one",
    "Answer goes here", "[answer]", "The fee is $XX.XX per month.", "...", "N/A", "Best regards, [Your Name]", "{answer}", "placeholder text", "<fill in>", "null", "%s is available on %s.", "____________",
]  # fmt: skip
REFUSALS = [
    "I'm sorry, but I can't help with that.", "As a large language model, I do not have access to that information.", "I am unable to assist with this request.",
    "Sorry, I can't provide that.", "I'm just an AI and can't give an opinion on this.", "Unfortunately, I'm not able to fulfil this request.",
    "As an AI developed by a research lab, I cannot answer.", "My apologies, however I cannot comply with this request.", "I must decline to answer this question.",
    "I don't feel comfortable answering this.", "My training data only goes up to 2021, so I do not know.", "I cannot browse the internet.",
    "It would not be appropriate for me to answer that.", "I won't be able to help you with this one.", "Regrettably, that is something I cannot discuss.",
    "I do not have personal experiences, being a language model.", "That request goes against my guidelines.", "I can’t assist with that request.",
]  # fmt: skip
SPECIAL = [
    "<|im_start|>assistant\n",
    "<|im_end|>",
    "</s>",
    "[INST] ",
    "<|endoftext|>",
    "<start_of_turn>model\n",
    "### Response:\n",
    "<|eot_id|>",
    "<<SYS>>",
]
LANGUAGES = [
    "Das Gerät kann innerhalb von dreißig Tagen zurückgeschickt werden, wenn es in der Originalverpackung liegt und die Rechnung beiliegt.",
    "Vous pouvez renvoyer l'appareil dans un délai de trente jours, à condition qu'il soit dans son emballage d'origine avec la facture.",
    "Puede devolver el aparato en un plazo de treinta días, siempre que esté en su embalaje original y acompañado de la factura.",
    "Устройство можно вернуть в течение тридцати дней, если оно находится в оригинальной упаковке и к нему приложен счёт.",
    "如果设备保留原包装并附有发票，您可以在三十天内退货，运费由我们承担，请提前联系客服。",
    "È possibile restituire l'apparecchio entro trenta giorni, purché sia nella confezione originale e accompagnato dalla fattura.",
    "Urządzenie można zwrócić w ciągu trzydziestu dni, jeśli znajduje się w oryginalnym opakowaniu i dołączono fakturę.",
    "يمكنك إرجاع الجهاز خلال ثلاثين يومًا إذا كان في عبوته الأصلية ومعه الفاتورة.",
]
STRANGE = {
    "äöüß": "Größe, Übergabe und Maß werden für jede Bestellung geprüft",
    "é": "Les élèves étudient déjà l'été à l'école, même après le goûter",
    "“”": "“Quality” isn’t an accident – it’s a habit… said the clerk’s friend",
    "ш": "Привет, спасибо за письмо и за ответ на вопрос",
    "€": "The fee of 5 € – or 20 zł – is due on the café’s counter",
}


def _typo(random: Random, text: str) -> str:
    words = text.split(" ")
    places = [n for n, word in enumerate(words) if len(word) > 4 and word.isalpha()]
    for n in random.sample(places, min(len(places), max(1, len(words) // 25))):
        at = random.randrange(1, len(words[n]) - 2)
        words[n] = words[n][:at] + words[n][at + 1] + words[n][at] + words[n][at + 2 :]
    return " ".join(words)


def _reordered(random: Random, text: str) -> str:
    sentences = text.split(". ")
    if len(sentences) > 2:
        return ". ".join([sentences[0], *reversed(sentences[1:-1]), sentences[-1]])
    words = text.split(" ")
    at = random.randrange(1, len(words) - 2)
    words[at], words[at + 1] = words[at + 1], words[at]
    return " ".join(words)


def _near(random: Random, pair: Pair) -> Pair:
    question, answer = pair
    way = random.randint(0, 4)
    if way == 0:
        return _typo(random, question), _typo(random, answer)
    if way == 1:
        return question.upper(), answer.lower()
    if way == 2:
        return question.rstrip("?.") + " ??", _reordered(random, answer)
    if way == 3:
        return "Hi, " + question[0].lower() + question[1:], answer.replace(", ", " ").rstrip(".")
    return question + " Thanks!", answer + " I hope this helps."


def _mojibake(random: Random) -> str:
    text = random.choice(list(STRANGE.values()))
    raw = text.encode("utf-8")
    ways = [
        lambda: raw.decode("latin-1"),
        lambda: raw.decode("cp1252", "replace"),
        lambda: raw.decode("latin-1").encode("utf-8").decode("latin-1"),
        lambda: raw.decode("ascii", "replace"),
        lambda: raw.decode("cp1251", "replace"),
        lambda: raw.decode("mac-roman"),
        lambda: raw.decode("cp437"),
        lambda: text.encode("cp1251", "ignore").decode("latin-1") if "П" in text else raw.decode("latin-1"),
    ]
    return random.choice(ways)()


def _loop(random: Random, answer: str) -> str:
    words = answer.split()
    return random.choice(
        [
            answer + " " + " ".join([words[-1]] * 30),
            " ".join([" ".join(words[:4])] * 15),
            " ".join([answer] * 6) if len(words) > 8 else " ".join([answer] * 20),
            answer + " " + "ha" * 80,
            answer + "!" * 120,
            "\n".join([f"- {' '.join(words[:5])}"] * 12),
        ]
    )


def _debris(random: Random, answer: str) -> str:
    half = len(answer) // 2
    return random.choice(
        [
            f'<div class="answer"><p>{answer}</p></div>',
            answer.replace(" ", "&nbsp;", 3) + "<br/>",
            f"{answer[:half]}<br><br>{answer[half:]}",
            f'<span style="color:#333">{answer}</span>',
            f"{answer} &lt;a href=&quot;/faq&quot;&gt;more&lt;/a&gt;",
            f"{answer}<script>window.dataLayer=window.dataLayer||[];</script>",
            f"<p>{answer}</p>\n<ul><li>Home</li><li>Cart</li></ul>",
            f"<!-- wp:paragraph -->{answer}<!-- /wp:paragraph -->",
        ]
    )


def _cut(random: Random, answer: str) -> str:
    """The answer as a limit of tokens leaves it: within a sentence."""
    words = answer.split(" ")
    ends = [n for n in range(len(words) // 2, len(words) - 1) if words[n - 1].isalpha() and words[n][:1].islower()]
    return " ".join(words[: random.choice(ends or [len(words) - 2])])


def _echo(random: Random, question: str) -> str:
    return random.choice(
        [question, question.upper(), f" {question.rstrip('?.')} ", f"Question: {question}", f"{question} {question}"]
    )


def _empty(random: Random) -> str:
    return random.choice(["", " ", "\n\n\t", "\u200b\u200b", "\u00a0", "\ufeff", "\u2060 \u200d", ".", "-", '""'])


def _extreme(random: Random, answer: str) -> str:
    return random.choice(
        [
            " ".join(f"{answer} ({n})" for n in range(60_000 // (len(answer) + 5))),
            "".join(random.choices(string.ascii_letters + string.digits + "+/", k=30_000)),
            "\n".join(
                f"2026-03-0{random.randint(1, 9)} 12:{n % 60:02d}:07 INFO worker {random.randint(1, 9)} handled request {n}"
                for n in range(900)
            ),
        ]
    )


TEXTUAL: dict[str, tuple[int, Callable[[Random, Pair], Pair]]] = {
    "mojibake": (24, lambda r, p: (p[0], f"{p[1]} {_mojibake(r)}")),
    "truncated": (24, lambda r, p: (p[0], _cut(r, p[1]))),
    "empty": (18, lambda r, p: (p[0], _empty(r))),
    "placeholder": (24, lambda r, p: (p[0], r.choice(PLACEHOLDERS))),
    "refusal": (24, lambda r, p: (p[0], r.choice(REFUSALS))),
    "echo": (16, lambda r, p: (p[0], _echo(r, p[0]))),
    "repetition": (20, lambda r, p: (p[0], _loop(r, p[1]))),
    "html": (20, lambda r, p: (p[0], _debris(r, p[1]))),
    "language": (20, lambda r, p: (p[0], r.choice(LANGUAGES))),
    "length": (8, lambda r, p: (p[0], _extreme(r, p[1]))),
    "special token": (
        14,
        lambda r, p: (p[0], r.choice(SPECIAL) + p[1]) if r.random() < 0.5 else (p[0] + r.choice(SPECIAL), p[1]),
    ),
    **{
        kind: (
            14,
            lambda r, p, make=make, frames=frames: (
                p[0],
                f"{p[1]} " + r.choice(frames).format(x=make(r), name=r.choice(NAMES)),
            ),
        )
        for kind, (make, frames) in PERSONAL.items()
    },
}


def _roles(random: Random, pair: Pair) -> Row:
    user, assistant = {"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}
    system = {"role": "system", "content": "You are a helpful clerk."}
    wrong: list[list[object]] = [
        [system, system, user, assistant],
        [user],
        [user, assistant, user],
        [assistant, user],
        [user, {"role": "asistant", "content": pair[1]}],
        [user, {"role": "bot", "content": pair[1]}],
        [{"role": "User", "content": pair[0]}, {"role": "Assistant", "content": pair[1]}],
        [user, user, assistant],
        [user, system, assistant],
        [{"content": pair[0]}, assistant],
        [user, {"role": "assistant", "content": None}],
        [user, {"role": "assistant", "content": ["a", "b"]}],
        [user, {"role": "assistant"}],
        [],
        [system],
        ["hello", "hi"],
        [user, assistant, assistant],
        [{"from": "human", "value": pair[0]}, {"from": "gpt", "value": pair[1]}],
    ]
    return {"messages": random.choice(wrong)}


def _raw(random: Random, line: bytes) -> bytes:
    """The line as a broken export leaves it."""
    text = line.decode()
    return random.choice(
        [
            line[: len(line) * 2 // 3],
            line.replace(b'"', b"'"),
            line[:-1] + b",}",
            b"this is not JSON",
            b"[1, 2, 3]",
            b'"only a string"',
            b"NaN",
            b"null",
            b"{}",
            line[:-1] + b', "weight": NaN}',
            line[:-1] + b', "score": 1e999}',
            line[:-1] + b"," + line[1:],
            b"\xff\xfe" + line,
            line.replace(b" ", b"\x00", 1),
            line[:20] + b"\xe4\xf6" + line[20:],
            line + line,
            b"\xef\xbb\xbf" + b"\xef\xbb\xbf" + line,
            (text[:-1] + ', "note": "a\tb"}').encode(),
            b"# a comment",
            line[:-1],
        ]
    )


def shape(pair: Pair, style: str) -> Row:
    """One row in the style of the file; a fifth of the chats has a system message."""
    question, answer = pair
    if style == "instruction":
        return {"instruction": question, "output": answer}
    if style == "prompt":
        return {"prompt": question, "completion": answer}
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    if len(answer) % 5 == 0:
        messages.insert(0, {"role": "system", "content": "You are a helpful clerk."})
    return {"messages": messages}


def corpus(seed: int, style: str = "messages", rows: int | None = None) -> Corpus:
    """At least 2,000 clean rows and the faults, shuffled; rows takes fewer clean ones."""
    random = Random(seed)
    pairs = clean_pairs(random)
    wordy = [pair for pair in pairs if 12 <= len(pair[1].split()) <= 60 and "\n" not in pair[1] and pair[1].isascii()]
    hosts, partners, suite = _shares(random, wordy)
    taken = {id(pair) for pair in hosts + suite}
    clean = [pair for pair in pairs if id(pair) not in taken]
    if rows is not None:
        kept = {id(pair) for pair in partners}
        clean = sorted(clean, key=lambda pair: id(pair) not in kept)[:rows]
    lines: list[tuple[str, bytes, int]] = [("", _dump(shape(pair, style)), id(pair)) for pair in clean]
    lines += [(kind, raw, partner) for kind, raw, partner in _faulty(random, style, iter(hosts), iter(partners), suite)]
    random.shuffle(lines)
    where = {key: number for number, (kind, _, key) in enumerate(lines, 1) if not kind}
    faults = [Fault(kind, number, where.get(key, 0)) for number, (kind, _, key) in enumerate(lines, 1) if kind]
    clean_lines = frozenset(where.values())
    return Corpus(b"\n".join(raw for _, raw, _ in lines) + b"\n", faults, clean_lines, suite)


def _shares(random: Random, wordy: list[Pair]) -> tuple[list[Pair], list[Pair], list[Pair]]:
    """Rows to spoil, clean rows to repeat, and the items of a suite: disjoint."""
    spoiled = sum(count for count, _ in TEXTUAL.values()) + 20 + 24 + 20 + 20
    assert len(wordy) >= spoiled + 80 + 30, len(wordy)
    chosen = random.sample(wordy, spoiled + 80 + 30)
    return chosen[:spoiled], chosen[spoiled : spoiled + 80], chosen[spoiled + 80 :]


def _other(random: Random, answer: str, foreign: str) -> str:
    """An answer that cannot stand beside the first: its opposite, or another subject's."""
    for word, opposite in (
        ("is", "is not"),
        ("are", "are not"),
        ("Return", "Delete"),
        ("returns", "never returns"),
        ("must", "need not"),
    ):
        if word in answer.split(" ") and random.random() < 0.5:
            return " ".join(opposite if part == word else part for part in answer.split(" "))
    return foreign


def _dump(row: Row) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode()


def _faulty(
    random: Random, style: str, hosts: Iterator[Pair], partners: Iterator[Pair], suite: list[Pair]
) -> Iterator[tuple[str, bytes, int]]:
    for kind, (count, spoil) in TEXTUAL.items():
        for _ in range(count):
            yield kind, _dump(shape(spoil(random, next(hosts)), style)), 0
    for _ in range(24):
        yield (
            "exact duplicate",
            _dump(shape(partner := next(partners), style)).replace(b". ", random.choice([b". ", b".  "])),
            id(partner),
        )
    for _ in range(30):
        yield "near duplicate", _dump(shape(_near(random, partner := next(partners)), style)), id(partner)
    for _ in range(20):
        question, answer = partner = next(partners)
        asked = random.choice([question, question.lower(), question.replace("?", " ?")])
        yield "contradiction", _dump(shape((asked, _other(random, answer, next(hosts)[1])), style)), id(partner)
    for number in range(24):
        question, answer = suite[number]
        asked = random.choice(
            [question.upper(), question, f"Hello! {question} Thank you.", question.replace(" ", "  ")]
        )
        yield "leakage", _dump(shape((asked, random.choice([answer, next(hosts)[1]])), style)), 0
    if style == "messages":
        for _ in range(20):
            yield "roles", _dump(_roles(random, next(hosts))), 0
    for _ in range(20):
        yield "unreadable", _raw(random, _dump(shape(next(hosts), style))), 0


UNREADABLE = "E200 E201 E202 E203 E204 E205 E206 E207 E216 E217 W251"
ACCEPTED = {
    "exact duplicate": "W220",
    "near duplicate": "W220 W221",
    "contradiction": "W222",
    "leakage": "E160",
    "phone": "W231",
    "iban": "W231",
    "card": "W231",
    "ssn": "W231",
    "e-mail": "W231",
    "secret": "E230 W232",
    "mojibake": "W246",
    "truncated": "W250",
    "empty": "E213 W243",
    "placeholder": "W241 W243",
    "refusal": "W240 W242",
    "echo": "W244",
    "repetition": "W245",
    "html": "W252",
    "language": "W247",
    "length": "W123 W245",
    "special token": "W249",
    "roles": "E205 E206 E207 E209 E210 E211 E212 E213",
    "unreadable": UNREADABLE,
}
"""The codes that name a kind of fault rightly: any other finding on the line does not count as found."""

PAIR_CODES = {"W220", "W221", "W222"}
PAIRED = {"exact duplicate", "near duplicate", "contradiction"}


def score(planted: Corpus, findings: Iterable[tuple[int, str]]) -> Score:
    """findings: (line, code). A pair counts as found on either line; a clean line is accused wrongly by any code that its partner does not explain."""
    said: dict[int, set[str]] = {}
    for line, code in findings:
        said.setdefault(line, set()).add(code)
    found: Counter[str] = Counter()
    missed = []
    explained: dict[int, set[str]] = {}
    for fault in planted.faults:
        codes = set(ACCEPTED[fault.kind].split())
        lines = [fault.line, *([fault.partner] if fault.kind in PAIRED else [])]
        if any(codes & said.get(line, set()) for line in lines):
            found[fault.kind] += 1
        else:
            missed.append(fault)
        explained.setdefault(fault.partner, set()).update(PAIR_CODES)
    alarms = {
        line: sorted(wrong)
        for line in sorted(planted.clean)
        if (wrong := said.get(line, set()) - explained.get(line, set()))
    }
    return Score(found, Counter(fault.kind for fault in planted.faults), missed, alarms)
