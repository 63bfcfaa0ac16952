"""Clean training rows of many domains, written without a look at the rules that judge them.

Each generator yields (question, answer) pairs that a careful team could have collected: help-desk answers, medical and legal advice,
Python's own documentation, arithmetic, extraction, translation, code, letters, long explanations. A part of them is hard on purpose: code
with TODO in it, an answer about HTML, a label of one word, a policy that opens with "Unfortunately", FAQs that differ in one word.
Every generator is a pure function of its `Random`.
"""

# ruff: noqa: E501  (the sentences are data, one to a line)

import inspect
import unicodedata
from collections.abc import Iterator
from datetime import date, timedelta
from importlib import import_module
from random import Random

Pair = tuple[str, str]

ASKED = [
    "What does `{}` do in Python?",
    "Explain `{}` briefly.",
    "When would I use `{}`?",
    "Can you tell me what {} is for?",
    "I came across {} in a code review. What is it?",
    "Describe the purpose of `{}`.",
    "please explain {}",
    "In one paragraph: {}",
    "Documentation for `{}`?",
]
MODULES = """argparse ast asyncio base64 bisect calendar cmath codecs collections colorsys concurrent.futures configparser contextlib copy csv
datetime decimal difflib dis email.message email.utils enum filecmp fractions ftplib functools gettext glob gzip hashlib heapq html http.client
http.cookies imaplib inspect io ipaddress itertools json keyword linecache locale logging logging.handlers lzma mailbox math mimetypes
multiprocessing numbers operator os os.path pathlib pdb pickle pkgutil platform plistlib poplib pprint profile queue random re reprlib sched
secrets selectors shelve shlex shutil signal smtplib socket socketserver sqlite3 ssl stat statistics string struct subprocess symtable sysconfig
tarfile tempfile textwrap threading timeit tokenize traceback turtle types unittest unittest.mock urllib.parse urllib.request uuid
venv warnings wave weakref webbrowser xml.dom.minidom xml.etree.ElementTree zipfile zoneinfo""".split()

PRODUCTS = """laptop tablet headset monitor keyboard printer router webcam projector speaker smartwatch camera microphone scanner dock
hard-drive charger e-reader drone television""".split()
POLICIES = [
    (
        "How many days do I have to return a {p}?",
        "A {p} can be sent back within {n} days of delivery, in its original box.",
    ),
    (
        "Who pays when I send a {p} back?",
        "We do. A prepaid label for the {p} is in your account under Orders, valid for {n} days.",
    ),
    (
        "My {p} arrived broken. What now?",
        "Please send us two photos of the {p} and its box within {n} days; a replacement ships the day after.",
    ),
    (
        "Is the {p} covered by a warranty?",
        "Yes, for {n} months from the invoice date; wear of the battery is not part of it.",
    ),
    (
        "How long does it take to deliver a {p}?",
        "Usually {d} working days. An express {p} costs {e} EUR more and arrives the next morning.",
    ),
    (
        "Can I pay for a {p} in instalments?",
        "Yes: {m} monthly payments without interest from an order value of {e}0 EUR.",
    ),
    (
        "do you repair a {p} that is out of warranty",
        "We do. The estimate costs {e} EUR and is deducted from the bill if you accept it.",
    ),
    (
        "Can I exchange my {p} for another colour?",
        "Unfortunately we cannot swap colours. Return the {p} within {n} days and order the new one.",
    ),
    (
        "Where do I find the serial number of the {p}?",
        "It is printed on the label under the {p}, a {n}-digit number that begins with SN.",
    ),
]
CONDITIONS = {
    "migraine": (
        "a throbbing one-sided headache with nausea and sensitivity to light",
        "rest in a dark room and an early dose of an anti-inflammatory painkiller",
        "a sudden thunderclap headache, fever with a stiff neck, or new weakness",
    ),
    "gout": (
        "a swollen, red and very painful joint, often the big toe",
        "cooling, rest and a short course of colchicine or an anti-inflammatory drug",
        "fever with a hot joint, which may be an infection",
    ),
    "asthma": (
        "wheezing, a tight chest and cough, often at night",
        "an inhaled reliever, and a daily inhaled steroid where attacks recur",
        "speaking in single words or blue lips",
    ),
    "iron deficiency": (
        "tiredness, pale skin and brittle nails",
        "oral iron on alternate days, and a search for the source of blood loss",
        "chest pain or breathlessness at rest",
    ),
    "type 2 diabetes": (
        "thirst, frequent urination and blurred sight",
        "weight loss, movement and usually metformin first",
        "vomiting with deep, fast breathing",
    ),
    "hypothyroidism": (
        "weight gain, dry skin and feeling cold",
        "levothyroxine on an empty stomach, with a blood test after six weeks",
        "confusion with a low body temperature",
    ),
    "gastric reflux": (
        "burning behind the breastbone after meals",
        "smaller evening meals and a course of an acid suppressor",
        "trouble swallowing, black stools or weight loss",
    ),
    "cystitis": (
        "burning when passing water and an urge to go often",
        "plenty of fluid and, if needed, a short antibiotic course",
        "flank pain with fever",
    ),
    "scabies": (
        "itching that is worst in bed, with fine burrows between the fingers",
        "a cream with permethrin for all members of the household on the same day",
        "crusted skin in a person with weak immunity",
    ),
    "tonsillitis": (
        "a sore throat, swollen glands and fever",
        "painkillers and fluids; antibiotics only when bacteria are likely",
        "drooling or being unable to open the mouth",
    ),
    "sciatica": (
        "pain that shoots from the back down one leg",
        "staying active, heat and simple painkillers",
        "numbness around the saddle or loss of bladder control",
    ),
    "eczema": (
        "dry, itching patches in the folds of elbows and knees",
        "emollients every day and a mild steroid cream in flares",
        "weeping, painful skin with fever",
    ),
    "chickenpox": (
        "itching blisters at different stages of healing",
        "cooling lotion and short nails so that scratching does less harm",
        "breathlessness or drowsiness",
    ),
    "vertigo of position": (
        "brief spinning on turning over in bed",
        "a repositioning manoeuvre by a trained person",
        "double vision or slurred speech",
    ),
    "shingles": (
        "a painful band of blisters on one side of the trunk",
        "an antiviral drug within three days of the rash",
        "blisters near the eye",
    ),
    "plantar fasciitis": (
        "heel pain with the first steps in the morning",
        "calf stretches, cushioned shoes and patience",
        "a heel that is hot, swollen and red",
    ),
    "kidney stones": (
        "waves of flank pain that reach the groin",
        "strong painkillers and, for large stones, a urologist's help",
        "fever or no urine at all",
    ),
    "hay fever": (
        "sneezing, itching eyes and a running nose in season",
        "a steroid spray for the nose and an antihistamine",
        "swelling of the tongue",
    ),
    "carpal tunnel syndrome": (
        "tingling in the thumb and first two fingers at night",
        "a wrist splint at night for six weeks",
        "wasting of the muscle at the base of the thumb",
    ),
    "osteoarthritis of the knee": (
        "pain on stairs and stiffness for a few minutes in the morning",
        "strengthening of the thigh and weight loss",
        "a locked or suddenly swollen knee",
    ),
}
MEDICAL = [
    ("What are typical signs of {c}?", "Typical signs are {0}."),
    (
        "A 4{k}-year-old patient presents with {0}. What is the likely diagnosis?",
        "The picture fits {c}. Other causes should be excluded by history and examination.",
    ),
    ("How is {c} usually treated at first?", "First-line treatment is {1}. Review after two to four weeks."),
    ("Which warning signs in {c} need urgent care?", "Seek care at once in case of {2}."),
    (
        "Explain {c} to a patient in plain words.",
        "You have {c}. That explains {0}. What helps is {1}. Please come back at once if you notice {2}.",
    ),
    (
        "Write a short discharge note for a patient with {c}.",
        "Diagnosis: {c}.\nFindings: {0}.\nPlan: {1}.\nReturn if: {2}.",
    ),
]
CLAUSES = {
    "force majeure": (
        "excuses a party that is prevented by an event outside its control",
        "the event, the notice period and the right to end the contract when it lasts",
    ),
    "indemnity": (
        "obliges one party to hold the other harmless from named losses",
        "the covered losses, the cap and who conducts the defence",
    ),
    "limitation of liability": (
        "caps what a party must pay in damages",
        "the cap, the excluded kinds of loss and the cases in which the cap does not hold",
    ),
    "confidentiality": (
        "forbids disclosure of what was learned under the contract",
        "what counts as confidential, the exceptions and the duration",
    ),
    "governing law": (
        "names the law by which the contract is read",
        "the law chosen and whether conflict rules are excluded",
    ),
    "arbitration": (
        "moves disputes from the courts to arbitrators",
        "the seat, the rules, the language and the number of arbitrators",
    ),
    "assignment": (
        "says whether rights may pass to a third party",
        "the need for consent and the exception for group companies",
    ),
    "severability": ("keeps the contract alive when one term is void", "what replaces the void term"),
    "non-compete": (
        "keeps a former employee from working for rivals for a time",
        "the area, the period and the compensation",
    ),
    "retention of title": (
        "leaves ownership with the seller until the price is paid",
        "resale, processing and the duty to insure",
    ),
    "termination for convenience": (
        "lets a party end the contract without cause",
        "the notice and the payment for work in progress",
    ),
    "entire agreement": (
        "shuts out promises made outside the document",
        "the documents that form the contract and their order",
    ),
    "warranty": (
        "promises that goods or services have agreed qualities",
        "the period, the remedies and the duty to inspect",
    ),
    "data processing": (
        "binds a processor to the controller's instructions",
        "purposes, sub-processors, deletion and audits",
    ),
    "exclusivity": (
        "keeps a party from dealing with competitors of the other",
        "territory, products and minimum purchases",
    ),
    "price adjustment": (
        "lets the price follow costs or an index",
        "the index, the interval and the right to terminate",
    ),
    "set-off": (
        "allows or forbids netting of claims against each other",
        "whether only undisputed claims may be netted",
    ),
    "audit right": ("lets a party inspect the other's records", "notice, frequency, cost and secrecy"),
    "change of control": (
        "gives a right when the other party is taken over",
        "the threshold of shares and the time to act",
    ),
    "acceptance": ("fixes when work counts as delivered", "the tests, the period and what silence means"),
}
LEGAL = [
    ("What is the effect of a clause on {c}?", "A clause on {c} {0}."),
    (
        "What should we settle when we draft a clause on {c}?",
        "Settle {1}. Use defined terms, and check the clause against mandatory law.",
    ),
    (
        "Our supplier struck out the clause on {c}. Is that a risk?",
        "It can be. Such a clause {0}. Without it the statutory rules apply, so compare them with what you need: {1}.",
    ),
    ('Summarise "{c}" for a manager in two sentences.', "The clause {0}. Look at {1} before you sign."),
    (
        "Is a term on {c} always valid in consumer contracts?",
        "No. Courts review standard terms for fairness, and a term that {0} may fail if it surprises the consumer.",
    ),
]
COUNTRIES = """France|Paris|French|euro;Japan|Tokyo|Japanese|yen;Brazil|Brasília|Portuguese|real;Kenya|Nairobi|Swahili|shilling;Canada|Ottawa|English and French|dollar
Norway|Oslo|Norwegian|krone;Poland|Warsaw|Polish|złoty;Peru|Lima|Spanish|sol;Egypt|Cairo|Arabic|pound;Vietnam|Hanoi|Vietnamese|đồng;Ghana|Accra|English|cedi
Iceland|Reykjavík|Icelandic|króna;Turkey|Ankara|Turkish|lira;Chile|Santiago|Spanish|peso;Nepal|Kathmandu|Nepali|rupee;Austria|Vienna|German|euro
Hungary|Budapest|Hungarian|forint;Morocco|Rabat|Arabic|dirham;Thailand|Bangkok|Thai|baht;Finland|Helsinki|Finnish|euro;Greece|Athens|Greek|euro
Sweden|Stockholm|Swedish|krona;Cuba|Havana|Spanish|peso;Israel|Jerusalem|Hebrew|shekel;India|New Delhi|Hindi|rupee;Mongolia|Ulaanbaatar|Mongolian|tögrög""".replace(
    "\n", ";"
).split(";")
WORLD = [
    ("What is the capital of {0}?", "{1}"),
    ("Which currency is used in {0}?", "The {3}."),
    ("Which language would I mostly hear in {1}?", "{2}, the main language of {0}."),
    ("{1} is the capital of which country?", "{0}."),
]
ADJECTIVES = "quiet sturdy noisy elegant flimsy bright heavy clever dull reliable".split()
PARTS = "hinge screen battery strap lens handle stand cable button filter".split()
VERDICTS = {
    "positive": [
        "I would buy it again.",
        "It has made my mornings easier.",
        "Worth every cent.",
        "My whole family likes it.",
        "Better than the old one.",
    ],
    "negative": [
        "I sent it back.",
        "It failed after a week.",
        "A waste of money.",
        "Nobody answered my complaint.",
        "Worse than the old one.",
    ],
    "neutral": [
        "It does what it says.",
        "Neither good nor bad.",
        "Time will tell.",
        "I have used it twice so far.",
        "It is a thing in a box.",
    ],
}
PHRASES = [
    (
        "Good morning, I would like a table for two.",
        "Bonjour, je voudrais une table pour deux personnes.",
        "Guten Morgen, ich hätte gern einen Tisch für zwei Personen.",
        "Buenos días, quisiera una mesa para dos personas.",
    ),
    (
        "Where is the nearest pharmacy?",
        "Où se trouve la pharmacie la plus proche ?",
        "Wo ist die nächste Apotheke?",
        "¿Dónde está la farmacia más cercana?",
    ),
    (
        "The train to the coast leaves at nine.",
        "Le train pour la côte part à neuf heures.",
        "Der Zug an die Küste fährt um neun Uhr ab.",
        "El tren a la costa sale a las nueve.",
    ),
    (
        "My luggage has not arrived yet.",
        "Mes bagages ne sont pas encore arrivés.",
        "Mein Gepäck ist noch nicht angekommen.",
        "Mi equipaje todavía no ha llegado.",
    ),
    (
        "Could you repeat that more slowly?",
        "Pourriez-vous répéter plus lentement ?",
        "Könnten Sie das langsamer wiederholen?",
        "¿Podría repetirlo más despacio?",
    ),
    (
        "We are looking for the town hall.",
        "Nous cherchons l'hôtel de ville.",
        "Wir suchen das Rathaus.",
        "Buscamos el ayuntamiento.",
    ),
    (
        "The museum is closed on Mondays.",
        "Le musée est fermé le lundi.",
        "Das Museum ist montags geschlossen.",
        "El museo cierra los lunes.",
    ),
    (
        "I am allergic to nuts.",
        "Je suis allergique aux noix.",
        "Ich bin gegen Nüsse allergisch.",
        "Soy alérgico a los frutos secos.",
    ),
    (
        "How much does this coat cost?",
        "Combien coûte ce manteau ?",
        "Wie viel kostet dieser Mantel?",
        "¿Cuánto cuesta este abrigo?",
    ),
    (
        "It will rain in the north tomorrow.",
        "Il pleuvra demain dans le nord.",
        "Morgen regnet es im Norden.",
        "Mañana lloverá en el norte.",
    ),
]
TOPICS = {
    "compost": "Compost is plant waste that microbes turn into dark soil.|Mix kitchen scraps with dry leaves so that air can enter.|Keep the heap as damp as a wrung-out sponge.|Turn it with a fork every second week.|Meat and cooked food attract rats and stay out.|After eight months the heap smells of forest.|Sieve it and spread two fingers' depth on the beds.|A heap that smells of ammonia wants more straw.",
    "index funds": "An index fund holds the shares of an index in the same weights.|Nobody is paid to pick winners, so its costs are low.|Costs matter because they compound like returns do.|A broad fund spreads the risk of single companies.|It cannot protect you from a falling market.|Money needed within five years does not belong in it.|A savings plan buys at high and at low prices alike.|Rebalance once a year and leave it alone otherwise.",
    "tides": "Tides are long waves raised by the Moon and the Sun.|The side that faces the Moon is pulled a little more than the centre.|The far side is pulled a little less, so there are two bulges.|The Earth turns beneath them, and most coasts see two high waters a day.|When Sun and Moon line up the range is greatest.|Bays can pile the water up to many metres.|Small seas hardly notice any of it.|Sailors have printed tables for centuries.",
    "code review": "A review is a conversation about a change before it is merged.|Small changes are read, large ones are waved through.|Say what is wrong, why, and what would be better.|Ask before you assume.|Praise what taught you something.|Let a tool argue about spaces and quotes.|Answer within a day, for the author is waiting.|The author decides how, the reviewer decides whether.",
    "sourdough": "A sourdough starter is flour and water in which wild yeast lives.|Feed it with equal weights of fresh flour and water.|It is ready when a spoonful floats.|Mix the dough wet and let it rest before kneading.|Fold it four times instead of working it hard.|A night in the cold brings flavour.|Bake in a hot iron pot with the lid on.|Let the loaf cool for an hour before cutting.",
    "backups": "A backup that was never restored is a hope.|Keep three copies on two kinds of media, one of them elsewhere.|Encrypt what leaves the house.|Automate it, since people forget.|Check every month that a random file comes back.|Snapshots on the same disk are convenient but no backup.|Write down how to restore, on paper.|Delete old generations by a rule, not by mood.",
    "the printing press": "Printing with movable type spread through Europe in the fifteenth century.|Letters of metal could be set, inked and used again.|A page that took a scribe a day took minutes.|Prices fell, and readers multiplied.|Errors multiplied as well, and so did corrections.|Maps and tables could be compared across cities.|Authorities answered with licences and lists.|Newspapers followed within two centuries.",
    "noise at work": "Noise above eighty-five decibels harms hearing over the years.|The first remedy is a quieter machine.|The second is distance or an enclosure.|Ear protection is the last, since people take it off.|Measure at the ear during a normal shift.|Breaks in quiet rooms help recovery.|Test hearing every year and compare.|A ringing ear after work is a warning.",
    "bees in winter": "A colony winters as a ball of bees around its queen.|They shiver their flight muscles to make heat.|Honey is the fuel, about fifteen kilograms of it.|Damp kills more colonies than cold does.|A small entrance keeps mice out.|Do not open the hive below ten degrees.|On a mild day they fly out to relieve themselves.|In March the first willow feeds the new brood.",
    "a good meeting": "A meeting needs a question that it shall answer.|Send what must be read a day before.|Invite those who decide and those who know.|Begin on time and with the hardest point.|One person writes down what was decided, by whom it is done and when.|Silence is not consent, so ask each person.|End when the question is answered.|Cancel the series that has lost its question.",
}
OPENERS = [
    "Let us take it in order.",
    "Here is the short story.",
    "There are a few things to know.",
    "In brief:",
    "A practical view:",
    "What matters most comes first.",
    "Seen from a distance it is simple.",
    "This is how I would explain it.",
]
TASKS = {
    "send the invoice for March": "the invoice for March has not reached us yet",
    "move our appointment to Thursday": "something urgent came up on Wednesday",
    "confirm the delivery date": "our warehouse plans its shifts a week ahead",
    "extend the trial by two weeks": "two colleagues were ill during the trial",
    "correct the name on the badge": "the badge shows my former name",
    "book a room for twelve people": "our usual room is being painted",
    "return the borrowed projector": "the school needs it on Friday",
    "approve the holiday plan": "tickets must be booked this week",
    "share the minutes of the call": "I had to leave ten minutes early",
    "check the water damage in the cellar": "the insurance asks for a written report",
}
LETTERS = [
    (
        "Write a polite e-mail asking a {w} to {t}.",
        "Subject: Request\n\nDear colleague,\n\ncould you please {t}? The reason is that {r}.\n\nThank you very much for your help.\n\nKind regards\nThe office team",
    ),
    (
        "Draft a short message to a {w}: please {t}.",
        "Hello, may I ask you to {t}? We would be grateful, because {r}. Many thanks in advance!",
    ),
    (
        "A {w} did not {t}. Write a friendly reminder.",
        "Dear all, this is a friendly reminder: please {t}. As you know, {r}. If it is already on its way, please ignore this note.",
    ),
]
WHO = ["supplier", "landlord", "colleague", "customer", "teacher"]
CODE = [
    (
        "Write a Python function that returns the {a} of a list of {b}.",
        '```python\ndef {a}_of_{b}(values):\n    """The {a} of the {b}; None for an empty list."""\n    return {f}(values) if values else None\n```',
    ),
    ("How do I select the {a} of {b} from an SQL table?", "SELECT {g}({b}) FROM measurements WHERE {b} IS NOT NULL;"),
    (
        "Give me a shell one-liner that prints the {a} of the column {b} of a CSV file.",
        "cut -d, -f2 {b}.csv | sort -n | {h}",
    ),
    (
        "Write a JavaScript arrow function for the {a} of an array of {b}.",
        "const {a}Of = ({b}) => {b}.length ? {i} : null;",
    ),
]
FUNCTIONS = {
    "maximum": ("max", "MAX", "tail -n 1", "Math.max(...values)"),
    "minimum": ("min", "MIN", "head -n 1", "Math.min(...values)"),
    "sum": ("sum", "SUM", "paste -sd+ | bc", "values.reduce((a, b) => a + b, 0)"),
    "number": ("len", "COUNT", "wc -l", "values.length"),
}
COLUMNS = "prices weights scores ages temperatures distances durations".split()
HARD: list[Pair] = [
    (
        "How do I mark unfinished work in my code so that the linter finds it?",
        "Write a comment that starts with TODO or FIXME, for example `# TODO(anna): handle leap years`, and enable the linter's rule for task tags.",
    ),
    (
        "What is lorem ipsum?",
        "Lorem ipsum is filler text derived from Latin that designers use to judge a layout before the real words exist.",
    ),
    (
        "How do I print the user's name in a Jinja template?",
        "Write `{{ user.name }}` in the template; Jinja replaces it with the value and escapes it.",
    ),
    (
        "How do I make a line break in HTML?",
        "Use the `<br>` element, for example:\n\n```html\n<p>First line<br>second line</p>\n```",
    ),
    (
        "Which HTML entity stands for a non-breaking space?",
        "&nbsp; stands for a non-breaking space, and &amp; for the ampersand itself.",
    ),
    (
        "Can I return opened software?",
        "I'm sorry, but opened software cannot be returned, since its licence key may already have been used. A faulty disc is replaced free of charge.",
    ),
    ("Correct the grammar: He go to school every days.", "He goes to school every day."),
    ("Correct the spelling: The weather is beautifull today.", "The weather is beautiful today."),
    ("Rewrite in upper case: mind the gap", "MIND THE GAP"),
    ("Reply with exactly the word ping.", "ping"),
    ("Repeat the word echo five times.", "echo echo echo echo echo"),
    ("Is 97 a prime number?", "Yes."),
    ("Is 91 a prime number? Answer yes or no.", "No"),
    (
        'What does the error "No space left on device" mean?',
        "The disk or its inode table is full. Check both with `df -h` and `df -i`.",
    ),
    (
        "Which placeholder does a prepared statement of SQLite use?",
        "A question mark: `INSERT INTO items VALUES (?, ?)`. Named placeholders such as `:name` work as well.",
    ),
    ("What is the loopback address?", "127.0.0.1 in IPv4 and ::1 in IPv6."),
    ("Give an example of a UUID.", "123e4567-e89b-12d3-a456-426614174000 is a UUID of version 1."),
    ("What does HTTP status 418 mean?", "I'm a teapot. It was an April joke and no server should use it in earnest."),
    ("Write the opening hours as a list.", "- Monday to Friday: 9:00-18:00\n- Saturday: 10:00-14:00\n- Sunday: closed"),
    (
        "Write a limerick about a cat.",
        "There once was a cat from the quay,\nWho dined upon sardines and brie.\nShe slept on the ropes,\nDreamt of fishermen's hopes,\nAnd woke only in time for her tea.",
    ),
    (
        "Write the chorus of a lullaby.",
        "Sleep, little boat, sleep,\nthe harbour is deep.\nSleep, little boat, sleep,\nthe stars have you to keep.",
    ),
    ("What is the git command to undo the last commit but keep the changes?", "git reset --soft HEAD~1"),
    ("Which port does PostgreSQL listen on by default?", "5432"),
    (
        "Show the ISBN-13 format.",
        "An ISBN-13 has thirteen digits in five groups, for example 978-0-306-40615-7; the last digit is a check digit.",
    ),
    (
        "How should I store a password in a config file?",
        'You should not. Read it from the environment, e.g. `password = os.environ["DB_PASSWORD"]`, or from a secret store.',
    ),
    (
        "I can't log in anymore and I am not able to reset my password.",
        'Please open the login page, choose "Forgot password" and follow the link in the message. The link works for one hour.',
    ),
    ("Quote the first line of the song everyone sings on birthdays.", "Happy birthday to you, happy birthday to you."),
    (
        "What is the Greek alphabet?",
        "Α α, Β β, Γ γ, Δ δ, Ε ε, Ζ ζ, Η η, Θ θ, Ι ι, Κ κ, Λ λ, Μ μ, Ν ν, Ξ ξ, Ο ο, Π π, Ρ ρ, Σ σ, Τ τ, Υ υ, Φ φ, Χ χ, Ψ ψ, Ω ω",
    ),
    (
        "Name a word with many accents.",
        'The French word "hétérogénéité" has five acute accents. Other examples: naïve, façade, Übergröße, smørrebrød, Çeşme.',
    ),
    (
        "How do I escape a template variable in LaTeX?",
        "Put a backslash before the special character: \\%, \\$, \\& and \\_ print %, $, & and _.",
    ),
    ("What is the table of seven?", "7, 14, 21, 28, 35, 42, 49, 56, 63, 70"),
    ("Which emoji shows approval?", "👍 is the usual one; ✅ and 🙌 work too."),
    ("Which phone number should I call in an emergency in Europe?", "112, free of charge from any phone."),
    (
        "What is our support address in the sample configuration?",
        "The sample uses support@example.com, which never reaches a real person.",
    ),
    ("What does the acronym TBD mean?", 'TBD stands for "to be determined".'),
    (
        "What should the assistant say about legal advice?",
        "It should say that it can give general information, and that a lawyer must look at the individual case.",
    ),
    ("Fill the form field for unknown middle names.", "Leave it empty; the form accepts that."),
    ("What is the answer to the ultimate question?", "42"),
    ("Write the Roman numerals from one to ten.", "I, II, III, IV, V, VI, VII, VIII, IX, X"),
    ("Show a valid JSON object with a nested list.", '{"name": "box", "sizes": [1, 2, 3], "open": false}'),
]


def stdlib(random: Random) -> Iterator[Pair]:
    """First paragraphs of the standard library's docstrings, methods too: real text, in real words, with code in it."""
    for module in MODULES:
        for name, member in _public(import_module(module)):
            if getattr(member, "__module__", None) != module:
                continue
            methods = _public(member)[:12] if inspect.isclass(member) else []
            for path, found in [(name, member), *((f"{name}.{method}", body) for method, body in methods)]:
                paragraph = " ".join((getattr(found, "__doc__", "") or "").split("\n\n")[0].split())
                if len(paragraph.split()) >= 6 and paragraph.endswith("."):
                    yield random.choice(ASKED).format(f"{module}.{path}"), paragraph


def _public(owner: object) -> list[tuple[str, object]]:
    return [
        (name, member) for name, member in sorted(vars(owner).items()) if not name.startswith("_") and callable(member)
    ]


def shop(random: Random) -> Iterator[Pair]:
    """FAQs that differ in a product or a number only, as every real help desk has them."""
    for product in PRODUCTS:
        for question, answer in POLICIES:
            words = {
                "p": product,
                "n": random.randint(8, 60),
                "d": random.randint(2, 9),
                "e": random.randint(5, 49),
                "m": random.randint(3, 24),
            }
            yield question.format(**words), answer.format(**words)


def advice(random: Random) -> Iterator[Pair]:
    """Medical and legal style."""
    for name, facts in CONDITIONS.items():
        for question, answer in MEDICAL:
            words = {"c": name, "k": random.randint(0, 9)}
            yield question.format(*facts, **words), answer.format(*facts, **words)
    for name, two in CLAUSES.items():
        for question, answer in LEGAL:
            yield question.format(*two, c=name), answer.format(*two, c=name)


def numbers(random: Random) -> Iterator[Pair]:
    """Sums, percentages, units and dates: short answers, many alike."""
    for _ in range(70):
        a, b = random.randint(12, 999), random.randint(12, 999)
        yield f"What is {a} × {b}?", str(a * b)
    for _ in range(50):
        share, whole = random.randint(2, 95), random.randint(2, 400) * 20
        yield f"How much is {share} % of {whole}?", f"{share} % of {whole} is {whole * share / 100:g}."
    for _ in range(50):
        day = date(2001, 1, 1) + timedelta(days=random.randint(0, 15000))
        yield f"Which weekday was or will be {day:%d %B %Y}?", f"{day:%d %B %Y} falls on a {day:%A}."
    for _ in range(50):
        miles = random.randint(3, 900)
        yield f"Convert {miles} miles to kilometres.", f"{miles} mi × 1.609344 = {miles * 1.609344:.1f} km"
    for _ in range(40):
        price, count = random.randint(2, 40), random.randint(3, 30)
        yield (
            f"A box holds {count} tins at {price} EUR each. A customer orders {price + 2} boxes. What is the total?",
            f"One box costs {count} × {price} = {count * price} EUR.\n{price + 2} boxes cost {price + 2} × {count * price} = {(price + 2) * count * price} EUR.\n\nTotal: {(price + 2) * count * price} EUR",
        )
    for code in random.sample(range(0xC0, 0x24F), 90) + random.sample(range(0x391, 0x3C9), 30):
        if name := unicodedata.name(chr(code), ""):
            yield f"What is the Unicode name of the character {chr(code)}?", f"U+{code:04X} is named {name}."


def world(random: Random) -> Iterator[Pair]:
    for country in COUNTRIES:
        for question, answer in WORLD:
            yield question.format(*country.split("|")), answer.format(*country.split("|"))


def labels(random: Random) -> Iterator[Pair]:
    """Classification and extraction: one-word labels, small JSON objects, lists."""
    for adjective in ADJECTIVES:
        for part in PARTS:
            label = random.choice(list(VERDICTS))
            review = f"The {part} is {adjective} and I have had it for {random.randint(2, 90)} days. {random.choice(VERDICTS[label])}"
            kind = random.randint(0, 2)
            if kind == 0:
                yield f"Classify the review as positive, negative or neutral.\n\n{review}", label
            elif kind == 1:
                yield f"Which part does this review mention? {review}", part
            else:
                yield f"Extract part and opinion as JSON: {review}", f'{{"part": "{part}", "opinion": "{adjective}"}}'


def translations(random: Random) -> Iterator[Pair]:
    """Answers in another language, as they were asked for."""
    for english, *others in PHRASES:
        for language, other in zip(("French", "German", "Spanish"), others, strict=True):
            yield f"Translate into {language}: {english}", other
            yield f"What does this {language} sentence mean in English? {other}", english


def letters(random: Random) -> Iterator[Pair]:
    for task, reason in TASKS.items():
        for question, answer in LETTERS:
            yield question.format(w=random.choice(WHO), t=task), answer.format(t=task, r=reason)


def code(random: Random) -> Iterator[Pair]:
    for name, (f, g, h, i) in FUNCTIONS.items():
        for column in COLUMNS:
            question, answer = random.choice(CODE)
            yield question.format(a=name, b=column), answer.format(a=name, b=column, f=f, g=g, h=h, i=i)


def long_ones(random: Random) -> Iterator[Pair]:
    """Explanations of several paragraphs, some of more than a thousand words."""
    for topic, text in TOPICS.items():
        sentences = text.split("|")
        wish = random.choice(
            [
                "Write a short article about {}.",
                "Tell me about {} in detail.",
                "Make a numbered list of what to know about {}.",
            ]
        )
        chosen = random.sample(sentences, 5)
        body = "\n".join(f"{n}. {s}" for n, s in enumerate(chosen, 1)) if "numbered" in wish else " ".join(chosen)
        yield wish.format(topic), f"{random.choice(OPENERS)}\n\n{body}"
    for first in TOPICS:
        for second in random.sample(
            [topic for topic in TOPICS if topic > first], min(2, len([t for t in TOPICS if t > first]))
        ):
            parts = [f"## {name.capitalize()}\n\n" + TOPICS[name].replace("|", " ") for name in (first, second)]
            yield f"Compare {first} with {second}, with a section on each.", "\n\n".join(parts)


def hard(random: Random) -> Iterator[Pair]:
    yield from HARD


GENERATORS = (stdlib, shop, advice, numbers, world, labels, translations, letters, code, long_ones, hard)


def clean_pairs(random: Random) -> list[Pair]:
    """Pairs with distinct questions, shuffled; texts that share most of their words with an earlier one are left out."""
    found: list[Pair] = []
    seen: set[str] = set()
    shingles: dict[frozenset[str], None] = {}
    for make in GENERATORS:
        for question, answer in make(random):
            key = " ".join(question.casefold().split())
            words = frozenset((question + " " + answer).casefold().split())
            if key in seen or (make is stdlib and (words in shingles or _close(words, shingles))):
                continue
            seen.add(key)
            if make is stdlib:
                shingles[words] = None
            found.append((question, answer))
    random.shuffle(found)
    return found


def _close(words: frozenset[str], others: dict[frozenset[str], None]) -> bool:
    """True where a docstring says the same as one before: the library repeats itself, and that would be a real duplicate."""
    return any(len(words & other) > 0.6 * len(words | other) for other in others)
