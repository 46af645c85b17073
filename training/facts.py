"""Kinds of facts that documents state: how they are written and asked for. Slots are kinds of invented values."""

# ruff: noqa: E501 - the tables read better with one entry a line

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FactKind:
    """``{s}`` is the subject, ``{v}`` the value asked for. The last statement and the last question are kept for evaluation."""

    subject: str  # a pattern with {kinds}, or several joined by |
    value: str  # the kind of the value
    statements: tuple[str, ...]
    questions: tuple[str, ...]


def _kind(subject: str, value: str, statements: str, questions: str) -> FactKind:
    return FactKind(subject, value, tuple(statements.split(" / ")), tuple(questions.split(" / ")))


_EVENTS = (
    "meeting|workshop|concert|party|exam|course|yoga class|dinner|interview|training|conference|board meeting|choir practice|"
    "book club|festival|lecture|race|wedding|team lunch|{org} meeting|budget meeting|{place} fair|opening of the {org}"
)
_THINGS = "{thing}|{thing}|{thing} of {person}|{colour} {thing}"
_PLACES = "{org}|{org}|library|office|shop|museum|canteen|swimming pool|gym|reception|pharmacy|{place} office"
_GOODS = "{product}|{thing}|ticket|ticket to {place}|membership|{org} ticket|repair|room|parking space|course|licence"

FACT_KINDS: tuple[FactKind, ...] = (
    _kind(
        _EVENTS,
        "room",
        "The {s} takes place in {v}. / The {s} is in {v}. / We hold the {s} in {v}. / Come to {v} for the {s}. / "
        "The {s} has been moved to {v}. / {v} is booked for the {s}. / For the {s} we use {v}.",
        "Where is the {s}? / Where does the {s} take place? / In which room is the {s}? / Where do we hold the {s}? / "
        "Where will the {s} be? / Where will we have the {s}? / Which room is the {s} in? / Where is the {s} held? / Tell me the place of the {s}. / "
        "Where do I have to go for the {s}?",
    ),
    _kind(
        _EVENTS,
        "day",
        "The {s} is on {v}. / The {s} takes place on {v}. / We meet for the {s} on {v}. / On {v} we have the {s}. / "
        "The {s} was moved to {v}.",
        "When is the {s}? / On which day is the {s}? / What day is the {s}? / When does the {s} take place? / "
        "Which weekday is the {s}? / Which day was chosen for the {s}? / Tell me the day of the {s}. / "
        "On what day do we have the {s}?",
    ),
    _kind(
        _EVENTS,
        "time",
        "The {s} starts at {v}. / The {s} begins at {v}. / At {v} the {s} begins. / Doors open for the {s} at {v}. / "
        "We start the {s} at {v}.",
        "When does the {s} start? / At what time does the {s} begin? / What time is the {s}? / When does the {s} begin? / "
        "How early does the {s} begin? / What is the starting time of the {s}? / Tell me the time of the {s}. / "
        "At what time does the {s} start?",
    ),
    _kind(
        _EVENTS,
        "date",
        "The {s} is on {v}. / The {s} takes place on {v}. / The date of the {s} is {v}. / The {s} will be held on {v}. / "
        "Please note {v} for the {s}.",
        "When is the {s}? / What is the date of the {s}? / On what date is the {s}? / When will the {s} be? / "
        "What date was chosen for the {s}? / Which date has the {s}? / Tell me the date of the {s}. / "
        "When does the {s} take place?",
    ),
    _kind(
        _PLACES,
        "time",
        "The {s} opens at {v}. / The {s} is open from {v}. / From {v} on the {s} is open. / You can enter the {s} from {v}.",
        "When does the {s} open? / What time does the {s} open? / At what time does the {s} open? / When can I enter the {s}? / What is the opening time of the {s}? / How early can I visit the {s}? / "
        "From when is the {s} open?",
    ),
    _kind(
        _PLACES,
        "time",
        "The {s} closes at {v}. / The {s} is open until {v}. / The {s} shuts at {v}. / Visitors must leave the {s} by {v}.",
        "When does the {s} close? / What time does the {s} close? / At what time does the {s} close? / When does the {s} shut? / What is the closing time of the {s}? / How late can I visit the {s}? / "
        "Until when is the {s} open?",
    ),
    _kind(
        _PLACES,
        "person",
        "The {s} is run by {v}. / {v} runs the {s}. / {v} is the head of the {s}. / The head of the {s} is {v}. / "
        "{v} is in charge of the {s}.",
        "Who runs the {s}? / Who is the head of the {s}? / Who is in charge of the {s}? / Who manages the {s}? / Who is the boss of the {s}? / Who directs the {s}? / Who is at the top of the {s}? / Tell me who runs the {s}. / "
        "Who leads the {s}?",
    ),
    _kind(
        "{job} of the {org}|{job}|new {job}|{job} of {place}",
        "person",
        "The {s} is {v}. / {v} is the {s}. / {v} works as the {s}. / Our {s} is called {v}. / {v} became the {s}.",
        "Who is the {s}? / What is the name of the {s}? / What is the {s} called? / Who was made the {s}? / Which person is the {s}? / Do you know the {s}? / "
        "Who works as the {s}?",
    ),
    _kind(
        "{person}",
        "job",
        "{s} is the {v}. / {s} works as a {v}. / {s} is our {v}. / {s} has been a {v} for years.",
        "What is the job of {s}? / What does {s} do? / What does {s} work as? / What is {s}? / What work does {s} do? / How does {s} earn a living? / Tell me the job of {s}. / "
        "Which job does {s} have?",
    ),
    _kind(
        "{person}",
        "place",
        "{s} lives in {v}. / {s} has a house in {v}. / The home of {s} is in {v}. / {s} moved to {v}. / "
        "Since last year {s} has lived in {v}.",
        "Where does {s} live? / In which town does {s} live? / Where is the home of {s}? / Where is the house of {s}? / Where has {s} moved to? / In what place does {s} live? / Tell me where {s} lives. / "
        "Which town does {s} live in?",
    ),
    _kind(
        "{person}",
        "place",
        "{s} was born in {v}. / {s} comes from {v}. / The birthplace of {s} is {v}. / {s} grew up in {v}.",
        "Where was {s} born? / Where does {s} come from? / Where is {s} from? / In which town was {s} born? / Where did {s} grow up? / From which town is {s}? / Tell me where {s} was born. / "
        "What is the birthplace of {s}?",
    ),
    _kind(
        "{person}",
        "food",
        "{s} likes {v}. / {s} loves to eat {v}. / The favourite food of {s} is {v}. / {s} asks for {v} every day.",
        "What does {s} like? / What does {s} like to eat? / What is the favourite food of {s}? / What food does {s} like? / Which food does {s} ask for? / What would {s} eat every day? / Tell me what {s} likes. / "
        "What does {s} love to eat?",
    ),
    _kind(
        "{person}",
        "phone",
        "The phone number of {s} is {v}. / Call {s} on {v}. / You can reach {s} at {v}. / {s} has the number {v}.",
        "What is the phone number of {s}? / How can I call {s}? / What number does {s} have? / How do I reach {s} by phone? / What is the number of {s}? / Give me the phone number of {s}. / On which number can I reach {s}? / "
        "Which number do I call for {s}?",
    ),
    _kind(
        "{person}|reception|{org}|support team",
        "email",
        "The address of {s} is {v}. / Write to {s} at {v}. / Mail for {s} goes to {v}. / Send questions for {s} to {v}.",
        "What is the email of {s}? / What is the email address of {s}? / Where can I write to {s}? / To which address do I write for {s}? / What is the address of {s}? / Give me the email of {s}. / How can I send something to {s}? / Where does mail for {s} go? / "
        "How do I mail {s}?",
    ),
    _kind(
        _THINGS,
        "spot",
        "The {s} is {v}. / The {s} is kept {v}. / You find the {s} {v}. / We put the {s} {v}. / Look for the {s} {v}. / "
        "The {s} is stored {v}. / Somebody left the {s} {v}. / The {s} lies {v}.",
        "Where is the {s}? / Where can I find the {s}? / Where do we keep the {s}? / Where is the {s} kept? / "
        "Where did they put the {s}? / Where did we put the {s}? / Where does the {s} lie? / Where is the {s} stored? / Where should I look for the {s}? / Do you know where the {s} is? / "
        "In which place is the {s}?",
    ),
    _kind(
        _THINGS,
        "person",
        "{v} has the {s}. / The {s} belongs to {v}. / {v} keeps the {s}. / Ask {v} for the {s}. / {v} took the {s}.",
        "Who has the {s}? / Who keeps the {s}? / Whom do I ask for the {s}? / Who owns the {s}? / Who took the {s}? / Whose is the {s}? / With whom is the {s}? / Who is the owner of the {s}? / Tell me who has the {s}. / "
        "To whom does the {s} belong?",
    ),
    _kind(
        "wifi|alarm|safe|front door|garage|{thing}|{org}|computer|gate|archive|locker|{product}|printer",
        "code",
        "The code of the {s} is {v}. / The code for the {s} is {v}. / Use the code {v} for the {s}. / "
        "The {s} has the code {v}. / To open the {s}, type {v}.",
        "What is the code of the {s}? / What is the code for the {s}? / Which code does the {s} have? / "
        "How do I open the {s}? / Tell me the code of the {s}. / What must I type at the {s}? / With which code does the {s} open? / "
        "Which code do I need for the {s}?",
    ),
    _kind(
        "wifi|guest network|computer|account|{org}|server|tablet|{product}|printer|mail",
        "code",
        "The password of the {s} is {v}. / The password for the {s} is {v}. / The {s} password is {v}. / "
        "Log in to the {s} with the password {v}.",
        "What is the password of the {s}? / What is the password for the {s}? / What is the {s} password? / "
        "How do I log in to the {s}? / Tell me the password of the {s}. / With which password do I get into the {s}? / "
        "Which password do I need for the {s}?",
    ),
    _kind(
        _GOODS,
        "price",
        "The {s} costs {v}. / The price of the {s} is {v}. / For the {s} we pay {v}. / You can buy the {s} for {v}. / "
        "The {s} is sold at {v}.",
        "How much does the {s} cost? / What does the {s} cost? / What is the price of the {s}? / How much is the {s}? / "
        "How expensive is the {s}? / For how much is the {s} sold? / What must I pay for the {s}? / At what price can I buy the {s}? / Tell me the price of the {s}. / "
        "How much do we pay for the {s}?",
    ),
    _kind(
        "rent|deposit|yearly fee|fine|insurance|electricity bill|fee for the {thing}|monthly rent|budget of the {org}",
        "price",
        "The {s} is {v}. / The {s} comes to {v}. / The {s} was set at {v}. / A sum of {v} is due as the {s}.",
        "How much is the {s}? / How high is the {s}? / What is the {s}? / How much money is the {s}? / To how much does the {s} come? / Tell me the {s}. / How much is due as the {s}? / "
        "What sum is the {s}?",
    ),
    _kind(
        "trip to {place}|flight to {place}|warranty|warranty of the {product}|contract|notice period|repair|tour|film|course|"
        "walk to {place}|journey|probation period",
        "duration",
        "The {s} lasts {v}. / The {s} takes {v}. / The {s} is {v} long. / Plan {v} for the {s}. / The {s} runs for {v}.",
        "How long is the {s}? / How long does the {s} last? / How long does the {s} take? / How many days or hours is the {s}? / What is the length of the {s}? / For how long does the {s} run? / Tell me how long the {s} is. / "
        "How much time does the {s} need?",
    ),
    _kind(
        "{org}|{product}|bridge|tower|lake|{place} tunnel|wall|machine|boat|road to {place}|tank|book",
        "measure",
        "The {s} measures {v}. / The {s} has {v}. / With its {v} the {s} is well known. / Experts give {v} for the {s}.",
        "What does the {s} measure? / How big is the {s}? / What is the size of the {s}? / How large is the {s}? / What are the measures of the {s}? / Which size does the {s} have? / Tell me the size of the {s}. / "
        "How much does the {s} measure?",
    ),
    _kind(
        "{org}|{product}|{org}|bridge|tower|church|club|{place} factory|railway|old mill",
        "year",
        "The {s} was built in {v}. / The {s} dates from {v}. / In {v} the {s} was built. / They built the {s} in {v}. / "
        "Building of the {s} ended in {v}.",
        "When was the {s} built? / In which year was the {s} built? / From which year is the {s}? / How old is the {s}? / Since when has there been a {s}? / When did they build the {s}? / In what year did the {s} come to be? / Tell me the year of the {s}. / "
        "What year was the {s} built?",
    ),
    _kind(
        "{org}|{product}|bridge|tower|{thing}|first {product}|song|book|garden of {place}",
        "person",
        "The {s} was designed by {v}. / {v} designed the {s}. / {v} made the {s}. / The {s} is the work of {v}. / "
        "It was {v} who made the {s}.",
        "Who designed the {s}? / Who made the {s}? / Who is the maker of the {s}? / By whom was the {s} made? / Who created the {s}? / Who built the {s}? / Which person designed the {s}? / Tell me who made the {s}. / "
        "Whose work is the {s}?",
    ),
    _kind(
        "table|statue|{product}|{thing}|door of the {org}|roof|bowl|floor of the {org}|bench|bell",
        "material",
        "The {s} is made of {v}. / The {s} consists of {v}. / They used {v} for the {s}. / {v} is what the {s} is made of.",
        "What is the {s} made of? / Of what is the {s} made? / Which material is the {s}? / What material is the {s}? / What did they make the {s} of? / What does the {s} consist of? / Tell me the material of the {s}. / "
        "Which material did they use for the {s}?",
    ),
    _kind(
        "{product}|door of the {org}|{thing}|bus to {place}|roof|car of {person}|logo|house of {person}|label",
        "colour",
        "The {s} is {v}. / The colour of the {s} is {v}. / They painted the {s} {v}. / You know the {s} by its {v} colour.",
        "What colour is the {s}? / What is the colour of the {s}? / Which colour does the {s} have? / In which colour did they paint the {s}? / How is the {s} painted? / Tell me the colour of the {s}. / "
        "What color is the {s}?",
    ),
    _kind(
        "dog of {person}|cat of {person}|ship|boat|daughter of {person}|son of {person}|project|company of {person}|wife of {person}|"
        "horse|robot|new product|capital of {place}",
        "place",
        "The {s} is called {v}. / The name of the {s} is {v}. / {v} is the name of the {s}. / They named the {s} {v}.",
        "What is the {s} called? / What is the name of the {s}? / Which name does the {s} have? / What do they call the {s}? / How is the {s} called? / Under which name is the {s} known? / Tell me the name of the {s}. / "
        "How did they name the {s}?",
    ),
    _kind(
        "visitors of the {org}|members of the {org}|chairs in the {org}|employees|pages|inhabitants of {place}|seats|rooms|"
        "students|guests|copies",
        "number",
        "There are {v} {s}. / The number of {s} is {v}. / We counted {v} {s}. / In total {v} {s} were listed.",
        "How many {s} are there? / What is the number of {s}? / How many {s} do we have? / How many {s} are listed? / How large is the number of {s}? / Tell me the number of {s}. / What is the count of {s}? / "
        "How many {s} were counted?",
    ),
    _kind(
        "{product}|machine|{thing}|plant|engine|filter|battery",
        "duration",
        "Clean the {s} every {v}. / The {s} must be checked every {v}. / Every {v} the {s} needs service. / "
        "Service of the {s} is due every {v}.",
        "How often must the {s} be checked? / How often do I clean the {s}? / How often does the {s} need service? / "
        "At what interval must the {s} be checked? / How often should I look after the {s}? / After how long must I clean the {s}? / How many times must the {s} be serviced? / "
        "When is service of the {s} due?",
    ),
    _kind(
        "parcel|train to {place}|bus to {place}|delivery|letter|guest|ship from {place}|{product}|plumber|new furniture",
        "day",
        "The {s} arrives on {v}. / The {s} comes on {v}. / On {v} the {s} will be here. / Expect the {s} on {v}.",
        "When does the {s} arrive? / When does the {s} come? / On which day does the {s} arrive? / When can I expect the {s}? / What day will the {s} come? / Which day does the {s} get here? / Tell me when the {s} arrives. / "
        "When will the {s} be here?",
    ),
    _kind(
        "train to {place}|bus to {place}|ferry|flight to {place}|tour|boat to {place}|next tram|night train",
        "time",
        "The {s} leaves at {v}. / The {s} departs at {v}. / At {v} the {s} leaves. / Departure of the {s} is at {v}.",
        "When does the {s} leave? / At what time does the {s} leave? / When does the {s} depart? / When does the {s} go? / What time does the {s} depart? / How late does the {s} leave? / Tell me when the {s} leaves. / "
        "When is the departure of the {s}?",
    ),
    _kind(
        "rent|report|bill|application|fee|form|homework|payment for the {org}|library book|tax",
        "date",
        "The {s} is due on {v}. / The deadline for the {s} is {v}. / Hand in the {s} by {v}. / The {s} must be in by {v}.",
        "When is the {s} due? / What is the deadline for the {s}? / By when must the {s} be in? / On what date is the {s} due? / What is the last day for the {s}? / When must I hand in the {s}? / Tell me the deadline for the {s}. / "
        "Until when can I hand in the {s}?",
    ),
)
