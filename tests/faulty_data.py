"""A believable data set with known faults in it, for tests and benchmarks of preflight. Seeded: the same every time.

The clean rows are answers of a help desk for appliances, about 300 tokens each, composed from many sentences with many
words to fill in, so that no two rows say the same. The faults are written as they come in real data, not as the checks
look for them; nothing here is imported from the checks.
"""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

THINGS = (
    "washing machine,dishwasher,fridge,freezer,oven,induction hob,tumble dryer,coffee maker,vacuum cleaner,"
    "air purifier,espresso machine,microwave,bread maker,food processor,stand mixer,ice cream maker,wine cooler,"
    "cooker hood,heat pump,dehumidifier,robot mower,pressure washer,sewing machine,slow cooker,rice cooker,"
    "water softener,boiler,radiator"
).split(",")
PARTS = (
    "door seal,drain pump,inlet valve,filter basket,heating element,temperature probe,drive belt,fan motor,"
    "control board,level switch,spray arm,detergent drawer,hinge,handle,power cord,circulation pump,bearing,"
    "gasket,hose,thermostat,capacitor,carbon brushes,display panel,door latch,pressure sensor,water tank,grinder,"
    "dust bag,suspension spring,lamp"
).split(",")
SIGNS = (
    "a burning smell,a steady humming,water on the floor,a blinking light,an error on the display,weak suction,"
    "uneven heating,a loud rattle,condensation inside,a door that will not lock,a programme that stops half way,"
    "white residue,a tripped fuse,lukewarm water,frost on the back wall,a slow start,squeaking,a sour smell,"
    "dim lamps,cold spots,a jammed drawer,grinding noises,a dead keypad,foam in the drum,streaks on the glass"
).split(",")
TOOLS = (
    "a soft cloth,a torch,a flat screwdriver,a bucket,an old toothbrush,warm vinegar,a multimeter,rubber gloves,"
    "a spirit level,a pair of pliers,descaling powder,a towel,a Torx key,a vacuum cleaner,mild soap,"
    "a cotton swab,a plastic spatula"
).split(",")
PLACES = (
    "kitchen,cellar,garage,hallway,utility room,bathroom,attic,workshop,holiday flat,canteen,laundrette,office,"
    "garden shed"
).split(",")
WHEN = (
    "this morning,since Tuesday,after the move,during the second rinse,right after the holidays,"
    "every other evening,since the last service,about a week ago,when the house is quiet,after a power cut,"
    "late at night,for a month now,whenever it rains,on cold mornings,since the new tiles were laid,"
    "after the children used it"
).split(",")
VERBS = "inspect,clean,loosen,replace,tighten,realign,test,rinse,reseat,measure,dry,lubricate,unplug,adjust,free".split(
    ","
)
REASONS = (
    "limescale narrows the passage,dust blocks the air,the rubber hardens with age,the contact has corroded,"
    "the floor is not level,lint gathers behind the panel,the sensor reads a wrong value,the hose is kinked,"
    "grease insulates the surface,a coin got past the filter,the spring has lost its tension,"
    "the fan turns against ice,the cable was pinched,the firmware waits for a signal,the valve closes too late,"
    "too much detergent was used,the seal sits crooked"
).split(",")
PEOPLE = "my neighbour,our landlord,the previous owner,my sister,the fitter,a colleague,my flatmate,the cleaner".split(
    ","
)
ASK = (
    "My {thing} in the {place} shows {sign} {when}. What should I look at first?",
    "{When} there has been {sign} from the {thing}. {Person} thinks the {part} is to blame; could that be so?",
    "How do I {verb} the {part} of a {thing} without calling anyone? I have {tool} and some patience.",
    "We bought a used {thing} for the {place}, and now there is {sign}. Is the {part} worth replacing?",
    "I tried to {verb} the {part}, but {sign} came back {when}. Which step did I leave out with my {thing}?",
    "Can {sign} on a {thing} come from the {part}, or is it rather the {part2}? It stands in the {place}.",
    "{Person} told me to {verb} the {part} of the {thing} every {n} weeks. Is that really needed?",
    "The {thing} stopped {when} with {sign}. I already used {tool} on the {part}. What next?",
    "Please explain how the {part} and the {part2} of a {thing} work together, since I keep seeing {sign}.",
)
EXAMINED = (
    "Which {part} fits a {thing} of an older make when the {part2} was changed already, and who has it near a {place}?",
    "If {sign} turns up {when}, would you blame the {part} or rather look for traces of {sign2} around the {part2}?",
    "Name the steps to {verb} a {part} safely when only {tool} is within reach and the {thing} cannot be moved.",
    "Suppose {reason}: what would a customer with a {thing} in the {place} notice before {sign} becomes obvious?",
    "What does it cost to have the {part} and the {part2} of a {thing} changed together, travel to a {place} included?",
    "For how many months is the {part} of a {thing} under guarantee if {person} fitted it {when}?",
)
SAY = (
    "Start with the {part}, because {reason} more often than people expect in a {place}.",
    "Switch the {thing} off at the wall and wait {n} minutes before you touch the {part}.",
    "With {tool} you can {verb} the {part} in roughly {n} minutes, provided the {part2} stays where it is.",
    "If {sign} disappears afterwards, {reason}, and nothing else needs attention.",
    "Otherwise {verb} the {part2} as well; on many models both wear out within {n} months of each other.",
    "In about {n} of a hundred cases {reason}, which explains {sign} quite well.",
    "Note down when it happens: {when} points to the {part}, at any other hour suspect the {part2}.",
    "A {part} costs between {n} and {m} euros, so repairing a {thing} of this age still pays.",
    "Keep {tool} at hand, since the {part2} may drip a little once you {verb} the {part}.",
    "Should you notice {sign} again, stop and let the {thing} cool down in the {place}.",
    "Owners who {verb} the {part} twice a year report far fewer calls about {sign}.",
    "The manual shows the {part} on page {m}; it sits behind the {part2} and is held by {n} screws.",
    "Do not force the {part}: {reason}, and pulling harder only damages the {part2}.",
    "Afterwards run the shortest programme without a load and listen for {sign}.",
    "When the {thing} stands in a {place}, {reason} sooner, so {verb} the {part} every {n} weeks.",
    "Put a level on top; a tilt of more than {n} millimetres strains the {part2} and causes {sign}.",
    "Our workshop can {verb} the {part} within {n} working days if you would rather not open the {thing} yourself.",
    "It helps to photograph the {part} before you {verb} it, so that each wire of the {part2} finds its way back.",
    "{Person} was partly right: the {part2} matters, yet {reason} and that comes first.",
    "For a {thing} bought {when}, the guarantee still covers the {part}, but not the {part2}.",
    "Hold {tool} against the {part2} and turn it by hand; it should move freely for {n} turns.",
    "Some residue around the {part} is normal, whereas {sign} is not.",
    "Once the {part} is back in place, check that the {part2} no longer touches the housing of the {thing}.",
    "Finally {verb} the {part2}, close the panel, and give the {thing} {n} hours before full use.",
    "A quick test: hold the {part} shut for {n} seconds and watch whether {sign} gets weaker.",
    "Because {reason}, the {part} works {n} percent harder than it was designed for.",
    "Tell the technician about {sign} and about the {part2}; it saves a second visit to the {place}.",
    "Hard water shortens the life of the {part} by {n} percent, and a {thing} in a {place} suffers most.",
)


class Planted(NamedTuple):
    """One fault. `twin`: the line of the clean row that it was made from and that a finding may name as well."""

    kind: str
    line: int
    twin: int | None = None


class DataSet(NamedTuple):
    """JSON Lines, where the faults are, and the questions that must not be in it."""

    lines: list[str]
    planted: list[Planted]
    asked: list[str]

    def write(self, path: Path) -> Path:
        path.write_text("\n".join(self.lines) + "\n", encoding="utf-8")
        return path

    def write_suite(self, folder: Path) -> Path:
        """The questions as a suite in a new folder."""
        folder.mkdir()
        (folder / "suite.toml").write_text(
            'name = "help-desk"\nkind = "questions"\ntitle = "t"\ndescription = "d"\n'
            'licence = "CC0-1.0"\nsource = "made up"\n'
        )
        items = [{"id": f"q-{i}", "question": text, "answers": ["x"], "tags": []} for i, text in enumerate(self.asked)]
        (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
        return folder


Row = dict[str, Any]
Maker = Callable[[random.Random, Row, list[str]], str | Row]


def make_clean(chance: random.Random, sentences: int = 13) -> Row:
    said = [_fill(chance, text) for text in chance.sample(SAY, sentences)]
    return {"instruction": _fill(chance, chance.choice(ASK)), "output": " ".join(said)}


def make_questions(chance: random.Random, n: int) -> list[str]:
    """Questions of a suite, put in other ways than the training rows ask."""
    return [_fill(chance, chance.choice(EXAMINED)) for _ in range(n)]


def make_dataset(rows: int, faults: int, seed: int) -> DataSet:
    """`rows` rows of which `faults` are faulty, spread evenly over the kinds and anywhere over the file."""
    chance = random.Random(seed)
    asked = make_questions(chance, 50)
    distinct: dict[str, Row] = {}
    while len(distinct) < rows - faults:  # one question twice with two answers would be a fault
        row = make_clean(chance)
        distinct.setdefault(row["instruction"], row)
    clean = list(distinct.values())
    kinds = list(KINDS)
    sources = chance.sample(range(len(clean)), faults)
    entries: list[tuple[float, str | Row, str, int | None]] = [(i, row, "", None) for i, row in enumerate(clean)]
    for number, source in enumerate(sources):
        kind = kinds[number % len(kinds)]
        faulty = KINDS[kind](chance, clean[source], asked)
        twin = source if kind in TWINS else None
        if twin is None:  # made of a row that is not in the file otherwise
            faulty = KINDS[kind](chance, make_clean(chance), asked)
        entries.append((chance.uniform(0, len(clean)), faulty, kind, twin))
    entries.sort(key=lambda entry: entry[0])
    places = {int(place): line for line, (place, _, kind, _) in enumerate(entries, start=1) if not kind}
    lines = [one if isinstance(one, str) else json.dumps(one, ensure_ascii=False) for _, one, _, _ in entries]
    planted = [
        Planted(kind, line, None if twin is None else places[twin])
        for line, (_, _, kind, twin) in enumerate(entries, start=1)
        if kind
    ]
    return DataSet(lines, planted, asked)


def _fill(chance: random.Random, text: str) -> str:
    part, part2 = chance.sample(PARTS, 2)
    person, when = chance.choice(PEOPLE), chance.choice(WHEN)
    n = chance.randint(3, 60)
    words = {
        "thing": chance.choice(THINGS),
        "part": part,
        "part2": part2,
        "sign": chance.choice(SIGNS),
        "sign2": chance.choice(SIGNS),
        "tool": chance.choice(TOOLS),
        "place": chance.choice(PLACES),
        "when": when,
        "When": when[0].upper() + when[1:],
        "verb": chance.choice(VERBS),
        "reason": chance.choice(REASONS),
        "person": person,
        "Person": person[0].upper() + person[1:],
        "n": n,
        "m": n + chance.randint(5, 90),
    }
    return text.format(**words)


# -- the faults


def _with(row: Row, output: str) -> Row:
    return {**row, "output": output}


def _exact(chance: random.Random, row: Row, asked: list[str]) -> Row:
    output = row["output"] if chance.random() < 0.5 else row["output"].replace(" ", "  ", 2) + "\n"
    return _with(row, output)


def _near(chance: random.Random, row: Row, asked: list[str]) -> Row:
    words = row["output"].split()
    for place in chance.sample(range(len(words)), 5):
        words[place] = chance.choice(["rather", "also", "usually", "then", "perhaps", "still"])
    question = row["instruction"].replace("What", "So what") if chance.random() < 0.5 else row["instruction"]
    return {"instruction": question, "output": " ".join(words)}


def _contradiction(chance: random.Random, row: Row, asked: list[str]) -> Row:
    return _with(row, make_clean(chance)["output"])


def _leak(chance: random.Random, row: Row, asked: list[str]) -> Row:
    question = chance.choice(asked)
    forms = (question, question.lower().replace("?", ""), f"Hello there. {question} Thank you.")
    return {**row, "instruction": chance.choice(forms)}


def _personal(chance: random.Random, row: Row, asked: list[str]) -> Row:
    first, last = (
        chance.choice(["maria", "john", "li.wei", "asha"]),
        chance.choice(["garcia", "smith", "chen", "patel"]),
    )
    digits = "".join(chance.choice("0123456789") for _ in range(4))
    forms = (
        f"You can write to {first}.{last}{digits[:2]}@{chance.choice(['gmail.com', 'mail.example.org', 'web.de'])}.",
        f"The customer's number is +44 20 7946 {digits}.",
        f"Reach him on (312) 555-{digits} in the evening.",
        "The card 4539 1488 0343 6467 was charged.",
        "It was paid from DE89 3704 0044 0532 0130 00.",
        f"Her social security number is 219-09-{digits[:3]}9.",
        "The request came from 84.112.37.9 at night.",
        "She was born on 12 March 1985 and lives alone.",
    )
    return _with(row, f"{row['output']} {chance.choice(forms)}")


def _secret(chance: random.Random, row: Row, asked: list[str]) -> Row:
    def some(n: int, alphabet: str = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnpqrstuvwxyz23456789") -> str:
        return "".join(chance.choice(alphabet) for _ in range(n))

    forms = (
        f"Use the key AKIA{some(16, 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567')} for the service portal.",
        f"The token is ghp_{some(36)} until Friday.",
        f"Send it with the header Authorization: Bearer sk-{some(40)}.",
        f"Log in with password: {some(5)}{chance.randint(10, 99)}!{some(3)} and change it.",
        f"The database is at postgres://desk:{some(12)}@db.internal:5432/desk for now.",
        f"-----BEGIN RSA PRIVATE KEY-----\n{some(64)}\n{some(64)}\n-----END RSA PRIVATE KEY-----",
    )
    return _with(row, f"{row['output']} {chance.choice(forms)}")


def _long(chance: random.Random, row: Row, asked: list[str]) -> Row:
    return _with(row, " ".join(make_clean(chance, 28)["output"] for _ in range(chance.randint(5, 9))))


def _cut(chance: random.Random, row: Row, asked: list[str]) -> Row:
    words = row["output"].split()
    kept = words[: chance.randint(len(words) // 2, len(words) - 3)]
    return _with(row, " ".join(kept).rstrip(".,;:") + chance.choice(["", ",", " and", " th"]))


def _empty(chance: random.Random, row: Row, asked: list[str]) -> Row:
    return _with(row, chance.choice(["", " ", "\n\n", "\u00a0"]))


def _roles(chance: random.Random, row: Row, asked: list[str]) -> Row:
    user, answer = {"role": "user", "content": row["instruction"]}, {"role": "assistant", "content": row["output"]}
    forms: tuple[list[dict[str, str]], ...] = (
        [answer, user],
        [user, user | {"content": "Hello?"}, answer],
        [{"role": "human", "content": row["instruction"]}, {"role": "gpt", "content": row["output"]}],
        [user],
        [user, {"role": "system", "content": "Be brief."}, answer],
    )
    return {"messages": chance.choice(forms)}


def _mojibake(chance: random.Random, row: Row, asked: list[str]) -> Row:
    added = chance.choice(
        [
            "It’s a café’s machine – “good”.",
            "Größe und Höhe prüfen.",
            "The fee is 5 €, naïve as it is.",
            "Voilà, c’est réparé.",
        ]
    )
    codec = chance.choice(["cp1252", "latin-1", "mac_roman"]) if "—" not in added else "cp1252"
    broken = added.encode().decode(codec, "replace")
    sentences = row["output"].split(". ")
    sentences.insert(chance.randrange(len(sentences)), broken.rstrip("."))
    return _with(row, ". ".join(sentences))


def _refusal(chance: random.Random, row: Row, asked: list[str]) -> Row:
    forms = (
        "I'm sorry, but I can't help with that request.",
        "I’m sorry, but I cannot assist you with this.",
        "I cannot provide instructions for opening an appliance.",
        "Sorry, I am not able to answer questions about this topic.",
        "Unfortunately, I am unable to help you with repairs.",
        "I apologize, but I won't be able to provide that information.",
    )
    return _with(row, chance.choice(forms))


def _as_ai(chance: random.Random, row: Row, asked: list[str]) -> Row:
    forms = (
        "As an AI language model, I have never held a screwdriver.",
        "I am just an AI, so please ask a technician.",
        "As a large language model I cannot see your machine.",
        "I don't have access to real-time data, and my training data ends years ago.",
    )
    first, _, rest = row["output"].partition(". ")
    return _with(
        row, chance.choice([f"{chance.choice(forms)} {row['output']}", f"{first}. {chance.choice(forms)} {rest}"])
    )


def _placeholder(chance: random.Random, row: Row, asked: list[str]) -> Row:
    forms = (
        f"Dear [Customer Name], {row['output']}",
        f"Hello {{{{first_name}}}}, {row['output']}",
        f"{row['output']} Call us on [INSERT PHONE NUMBER].",
        "TODO: write this answer.",
        "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor.",
        "N/A",
        f"{row['output']} Kind regards, [Your Name]",
        "<insert answer here>",
    )
    return _with(row, chance.choice(forms))


def _echo(chance: random.Random, row: Row, asked: list[str]) -> Row:
    return _with(row, chance.choice([row["instruction"], row["instruction"].upper(), f" {row['instruction']}\n"]))


def _repetition(chance: random.Random, row: Row, asked: list[str]) -> Row:
    sentences = row["output"].split(". ")
    forms = (
        " ".join([f"{sentences[0]}."] * chance.randint(5, 12)),
        f"{row['output']} " + " ".join([f"{sentences[-1].rstrip('.')}."] * 4),
        f"{sentences[0]}. It is very" + " very" * chance.randint(8, 40) + " important.",
        f"{row['output']} " + "and so on " * 12 + "and so on.",
    )
    return _with(row, chance.choice(forms))


def _language(chance: random.Random, row: Row, asked: list[str]) -> Row:
    forms = (
        "Bitte schalten Sie das Gerät zuerst aus und warten Sie einige Minuten, bevor Sie den Filter reinigen.",
        "Débranchez d'abord l'appareil, puis nettoyez le filtre avec un chiffon doux avant de le remettre en place.",
        "Desenchufe primero el aparato y limpie después el filtro con un paño suave antes de volver a colocarlo.",
        "Schakel het apparaat eerst uit en maak daarna het filter schoon met een zachte doek.",
        "まず電源を切ってから、やわらかい布でフィルターを掃除してください。",
    )
    return _with(row, chance.choice(forms))


def _marks(chance: random.Random, row: Row, asked: list[str]) -> Row:
    forms = (
        _with(row, f"{row['output']}<|im_end|>"),
        _with(row, f"{row['output']}</s>"),
        {**row, "instruction": f"[INST] {row['instruction']} [/INST]"},
        {**row, "instruction": f"### Instruction:\n{row['instruction']}\n\n### Response:"},
        _with(row, f"{row['output']}\nHuman: {row['instruction']}"),
    )
    return chance.choice(forms)


def _broken(chance: random.Random, row: Row, asked: list[str]) -> str:
    line = json.dumps(row)
    forms = (
        line[: chance.randint(5, len(line) - 2)],
        line.replace('"output"', '"outptu"'),
        line.replace('"output": "', '"output": ["', 1)[:-2] + '"]}',
        line.replace("{", '{"output": "twice", ', 1),
        json.dumps([row]),
        line.replace('"output"', "output"),
    )
    return chance.choice(forms)


def _short(chance: random.Random, row: Row, asked: list[str]) -> Row:
    return _with(row, chance.choice(["Yes.", "OK", "No idea.", "…", "Sure!", "-"]))


KINDS: dict[str, Maker] = {
    "exact duplicate": _exact,
    "near duplicate": _near,
    "contradiction": _contradiction,
    "leak of a suite": _leak,
    "personal data": _personal,
    "secret": _secret,
    "too long": _long,
    "cut off": _cut,
    "empty answer": _empty,
    "wrong roles": _roles,
    "broken characters": _mojibake,
    "refusal": _refusal,
    "speaks as an AI": _as_ai,
    "placeholder": _placeholder,
    "echo": _echo,
    "repetition": _repetition,
    "other language": _language,
    "marks of a template": _marks,
    "broken line": _broken,
    "too short": _short,
}
TWINS = ("exact duplicate", "near duplicate", "contradiction")

# The rules of which one must name the fault, by kind.
EXPECTED: dict[str, tuple[str, ...]] = {
    "exact duplicate": ("W220",),
    "near duplicate": ("W221",),
    "contradiction": ("W222",),
    "leak of a suite": ("E160",),
    "personal data": ("W231",),
    "secret": ("E230", "W232"),
    "too long": ("W123", "E122"),
    "cut off": ("W250",),
    "empty answer": ("E213",),
    "wrong roles": ("E209", "E210", "E211"),
    "broken characters": ("W246",),
    "refusal": ("W240",),
    "speaks as an AI": ("W242",),
    "placeholder": ("W241",),
    "echo": ("W244",),
    "repetition": ("W245",),
    "other language": ("W247",),
    "marks of a template": ("W249",),
    "broken line": ("E201", "E202", "E203", "E205", "E206", "E207"),
    "too short": ("W243", "W241"),
}


class Outcome(NamedTuple):
    """found, of: faults named by one of their rules, by kind. false: rules by line of clean rows that have findings."""

    found: dict[str, int]
    of: dict[str, int]
    false: dict[int, list[str]]
    missed: list[Planted]


def judge(data: DataSet, findings: list[tuple[int | None, str]]) -> Outcome:
    """findings: (line, rule). A finding on a fault's twin counts for the fault."""
    by_line: dict[int, set[str]] = {}
    for line, rule in findings:
        if line is not None:
            by_line.setdefault(line, set()).add(rule)
    hits, total, missed = dict.fromkeys(KINDS, 0), dict.fromkeys(KINDS, 0), []
    excused: set[int] = set()
    for one in data.planted:
        named = by_line.get(one.line, set()) | by_line.get(one.twin or 0, set())
        excused |= {one.line, one.twin or 0}
        total[one.kind] += 1
        if named & set(EXPECTED[one.kind]):
            hits[one.kind] += 1
        else:
            missed.append(one)
    false = {line: sorted(rules) for line, rules in by_line.items() if line not in excused}
    return Outcome(hits, total, false, missed)
