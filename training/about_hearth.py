"""Questions about Hearth itself, answered as its own pages have it."""


# ruff: noqa: E501 - the tables read better with one entry a line

from __future__ import annotations

import random

from training.chats import Chat, Message
from training.world import as_spoken, varied

LEFT_OUT = 0.1
# answer -> questions, the last of which is kept for evaluation
ABOUT: dict[str, str] = {
    "Run `make run` or `hearth`; the page then opens in your browser.": "How do I start Hearth? / How do I open the page? / How can I run Hearth? / Which command starts Hearth? / How do I launch it? / How do I get to the page? / Start Hearth how? / What do I type to start Hearth?",
    "The page is on http://127.0.0.1:7860.": "What is the address of the page? / Which port does Hearth use? / Where do I find the page? / On which address is the page? / What port is it on? / Which URL is it? / What is Hearth's port? / At which address does Hearth listen?",
    "Use `--port` with another number, and 0 takes a free port.": "How do I change the port? / Can I use another port? / The port is taken, what now? / How do I choose a port? / How do I use port 8000? / How do I set the port? / How can I run Hearth on another port?",
    "Drop the file on the page, or run `hearth memory add` with its name.": "How do I add a document? / How can I add a file? / How do I give you a PDF? / How do I put a document into memory? / How do I upload a document? / Where do I add documents? / How do I fill the memory? / What do I do to add a manual?",
    "Run `hearth memory search` with what you look for.": "How do I search the memory? / How can I search my documents? / Which command searches memory? / How do I find something in memory? / How do I look something up in memory? / How do I search what I added?",
    "Run `hearth memory list`.": "How do I see what is in memory? / How do I list my documents? / Which documents do you have? / What have I added to memory? / How can I list the memory? / Show me what is in memory. / Which command lists the documents?",
    "Run `hearth memory forget` with the document's ID; it is overwritten, not only unlinked.": "How do I delete a document? / How do I remove a file from memory? / How can I make you forget a document? / How do I erase something from memory? / Can I delete documents? / How does Hearth forget something?",
    "In one folder, `~/.local/share/hearth` on Linux; `--data-dir` names another.": "Where is my data? / Where does Hearth keep its data? / Where are my conversations stored? / Where do you store files? / In which folder is my data? / Where does it save everything? / Which folder holds the conversations?",
    "Use `--data-dir` or HEARTH_DATA_DIR with another folder.": "How do I change the data folder? / Can I keep my data somewhere else? / How do I use another folder? / How do I move the data folder? / How can I choose where data is kept?",
    "Run `hearth conversations list`.": "How do I list my conversations? / How do I see old chats? / Where are my old chats? / How do I find an earlier conversation? / Which command lists conversations? / How can I look at earlier chats?",
    "Run `hearth conversations delete` with the conversation's ID.": "How do I delete a conversation? / How can I delete a chat? / How do I remove a chat? / Which command deletes a conversation? / Can I delete this chat? / How do I get rid of an old conversation?",
    "Use `hearth ask` with `--image` and the file.": "How do I ask about a picture from the command line? / How do I send a picture with the command? / How do I use a picture in the terminal? / Which option sends an image? / How can I ask about an image in the shell?",
    "Run `hearth --model` with the path of a GGUF file.": "How do I use another model? / How do I choose a bigger model? / Can I use my own model? / How do I change the model? / How do I load a GGUF? / How do I get a better model? / Which option sets the model? / How can I run a larger model?",
    "No. No request leaves your machine: there is no account, no telemetry and no download at run time.": "Does Hearth need an account? / Does Hearth send telemetry? / Does Hearth download anything? / Is there any telemetry? / Do I have to log in? / Do I need to register? / Must I make an account?",
    "Run `hearth doctor`; it looks at the machine and says what to do.": "Something is wrong, what can I do? / How do I find out what is wrong? / Hearth does not work. / What does hearth doctor do? / How do I check my installation? / It is broken, what now? / How can I check the machine?",
    "Text, Markdown, HTML, PDF, Word, PowerPoint, Excel, CSV, EPUB, e-mail, source code, pictures, recordings and video.": "Which files can I add? / What kinds of documents do you read? / Can you read PDF? / Which formats do you support? / Can I add a Word file? / What file types can Hearth read? / Which formats can you open? / What sorts of files do you understand?",
    "Press Ctrl-C or the stop button; what was said so far is kept.": "How do I stop an answer? / How can I stop you? / How do I interrupt an answer? / Can I stop you while you answer? / How do I cancel? / How is an answer stopped?",
    "Use `--json`; it prints one JSON object.": "How do I get JSON from the command? / Which option prints JSON? / Can hearth ask print JSON? / How do I get the answer as JSON in the shell? / Is there JSON output on the command line?",
    "In `hearth.toml`, in the folder you are in or in your configuration folder.": "Where are the settings? / Where is the configuration? / Which file holds the settings? / How do I configure Hearth? / Where do I put settings? / What is the configuration file called?",
    "The first start compiles llama.cpp, which takes some minutes; after that it starts at once.": "Why is the first start slow? / Why does it take so long the first time? / Why does installing take minutes? / What takes so long at first? / Why is the first run so slow?",
    "Python 3.11, 3.12 or 3.13, a C++ compiler and make.": "What does Hearth need? / What are the requirements? / Which Python does Hearth need? / What do I need to install? / Which version of Python do I need? / What must be installed for Hearth?",
    "It keeps what the model has read on disk, so that nothing is read twice, even after a restart.": "What is the KV cache for? / What are KV blocks? / Why is the second question faster? / What does the cache do? / Why does Hearth keep KV blocks? / What does Hearth cache?",
    "Set `kv_disk_gib` to another number of GiB; 0 keeps none.": "How do I limit the cache? / How much disk does the cache take? / How do I make the cache smaller? / How do I turn off the KV cache? / Which setting limits the KV blocks?",
    "Apache-2.0.": "What is Hearth's licence? / Which license does Hearth have? / Is Hearth free software? / Under which licence is it? / What license is Hearth under?",
    "Use `make run ACCEL=cuda`, or vulkan, hip or metal.": "How do I use a GPU? / Can Hearth use my graphics card? / How do I run on CUDA? / How do I turn on the GPU? / How can I make Hearth use the GPU?",
    "Run `hearth bench engine`.": "How do I measure the speed? / How fast is my model? / How do I benchmark Hearth? / Which command measures speed? / How can I test how fast it is?",
}  # fmt: skip


def about_hearth(rng: random.Random, *, held_out: bool = False) -> Chat:
    """A question about Hearth and its answer."""
    answer = rng.choice(tuple(ABOUT))
    forms = ABOUT[answer].split(" / ")
    question = forms[-1] if held_out else rng.choice(forms[:-1])
    if not held_out:
        if rng.random() < 0.3:
            kept = [word for word in question.split(" ") if rng.random() > LEFT_OUT]
            question = " ".join(kept) or question
        question = varied(question, rng)
        if rng.random() < 0.2:
            question = as_spoken(question)
    return Chat((Message("user", question), Message("assistant", answer)), "about Hearth", (answer,))
