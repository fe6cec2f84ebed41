"""Answers as full sentences: patterns for each of the 33 templates.

`{0}`, `{1}`, ... are the template's slots from left to right and `{=}` is the answer; what
may follow in a field is told in `instruct_data.sentences`. Patterns that stand side by side
say the same thing of different answers, so that a sentence can follow its answer when an
augmentation changes it.

A "no" denies what was asked and claims nothing else: whoever is not louder may be just as
loud. A zero is always named, because "there are no violins" alone would be scored as "no"
or "violin".
"""

from __future__ import annotations

YES_NO: dict[str, tuple[tuple[str, str], ...]] = {
    "Is the <Object> louder than the <Object>?": (
        (
            "Yes, the {0} {0|is|are} louder than the {1}.",
            "No, the {0} {0|is|are} not louder than the {1}.",
        ),
        (
            "Yes, the {0} {0|sounds|sound} louder than the {1}.",
            "No, the {0} {0|does|do} not sound louder than the {1}.",
        ),
        (
            "Yes, the sound of the {0} is louder than that of the {1}.",
            "No, the sound of the {0} is not louder than that of the {1}.",
        ),
        (
            "Yes, compared with the {1}, the {0} {0|is|are} louder.",
            "No, compared with the {1}, the {0} {0|is|are} not louder.",
        ),
    ),
    "Is the <Object> more rhythmic than the <Object>?": (
        (
            "Yes, the {0} {0|is|are} more rhythmic than the {1}.",
            "No, the {0} {0|is|are} not more rhythmic than the {1}.",
        ),
        (
            "Yes, the {0} {0|sounds|sound} more rhythmic than the {1}.",
            "No, the {0} {0|does|do} not sound more rhythmic than the {1}.",
        ),
        (
            "Yes, compared with the {1}, the {0} {0|is|are} more rhythmic.",
            "No, compared with the {1}, the {0} {0|is|are} not more rhythmic.",
        ),
        (
            "Yes, the {0} {0|has|have} more rhythm than the {1}.",
            "No, the {0} {0|does|do} not have more rhythm than the {1}.",
        ),
    ),
    "Is the <Object> playing longer than the <Object>?": (
        (
            "Yes, the {0} {0|is|are} playing longer than the {1}.",
            "No, the {0} {0|is|are} not playing longer than the {1}.",
        ),
        (
            "Yes, the {0} {0|plays|play} for longer than the {1}.",
            "No, the {0} {0|does|do} not play for longer than the {1}.",
        ),
        (
            "Yes, the {0} can be heard for more time than the {1}.",
            "No, the {0} cannot be heard for more time than the {1}.",
        ),
        (
            "Yes, the playing of the {0} lasts longer than that of the {1}.",
            "No, the playing of the {0} does not last longer than that of the {1}.",
        ),
    ),
    "Are there <Object> and <Object> sound?": (
        (
            "Yes, both the {0} and the {1} sound.",
            "No, the {0} and the {1} do not both sound.",
        ),
        (
            "Yes, there is sound of the {0} and of the {1}.",
            "No, there is not sound of both the {0} and the {1}.",
        ),
        (
            "Yes, the {0} and the {1} can both be heard.",
            "No, the {0} and the {1} cannot both be heard.",
        ),
        (
            "Yes, {0:a} and {1:a} are both heard in the video.",
            "No, {0:a} and {1:a} are not both heard in the video.",
        ),
    ),
    "Is there a <Object> sound?": (
        ("Yes, there is {0} sound.", "No, there is no {0} sound."),
        ("Yes, the {0} can be heard.", "No, the {0} cannot be heard."),
        ("Yes, {0:a} sounds in the video.", "No, {0:a} does not sound in the video."),
        ("Yes, the sound of {0:a} is heard.", "No, the sound of {0:a} is not heard."),
    ),
    "Is the <Object> on the <LR> louder than the <Object> on the <LR>?": (
        (
            "Yes, the {0} {1:at} {0|is|are} louder than the {2} {3:at}.",
            "No, the {0} {1:at} {0|is|are} not louder than the {2} {3:at}.",
        ),
        (
            "Yes, the {0} {1:at} {0|sounds|sound} louder than the {2} {3:at}.",
            "No, the {0} {1:at} {0|does|do} not sound louder than the {2} {3:at}.",
        ),
        (
            "Yes, compared with the {2} {3:at}, the {0} {1:at} {0|is|are} louder.",
            "No, compared with the {2} {3:at}, the {0} {1:at} {0|is|are} not louder.",
        ),
        (
            "Yes, the sound of the {0} {1:at} is louder than that of the {2} {3:at}.",
            "No, the sound of the {0} {1:at} is not louder than that of the {2} {3:at}.",
        ),
    ),
    "Is the <Object> on the <LR> more rhythmic than the <Object> on the <LR>?": (
        (
            "Yes, the {0} {1:at} {0|is|are} more rhythmic than the {2} {3:at}.",
            "No, the {0} {1:at} {0|is|are} not more rhythmic than the {2} {3:at}.",
        ),
        (
            "Yes, the {0} {1:at} {0|sounds|sound} more rhythmic than the {2} {3:at}.",
            "No, the {0} {1:at} {0|does|do} not sound more rhythmic than the {2} {3:at}.",
        ),
        (
            "Yes, compared with the {2} {3:at}, the {0} {1:at} {0|is|are} more rhythmic.",
            "No, compared with the {2} {3:at}, the {0} {1:at} {0|is|are} not more rhythmic.",
        ),
        (
            "Yes, the {0} {1:at} {0|has|have} more rhythm than the {2} {3:at}.",
            "No, the {0} {1:at} {0|does|do} not have more rhythm than the {2} {3:at}.",
        ),
    ),
    "Is the instrument on the <LR> louder than the instrument on the <LR>?": (
        (
            "Yes, the instrument {0:at} is louder than the instrument {1:at}.",
            "No, the instrument {0:at} is not louder than the instrument {1:at}.",
        ),
        (
            "Yes, the {0} instrument is louder than the {1} one.",
            "No, the {0} instrument is not louder than the {1} one.",
        ),
        (
            "Yes, the instrument {0:at} sounds louder than the one {1:at}.",
            "No, the instrument {0:at} does not sound louder than the one {1:at}.",
        ),
        (
            "Yes, compared with the instrument {1:at}, the one {0:at} is louder.",
            "No, compared with the instrument {1:at}, the one {0:at} is not louder.",
        ),
    ),
    "Is the instrument on the <LR> more rhythmic than the instrument on the <LR>?": (
        (
            "Yes, the instrument {0:at} is more rhythmic than the instrument {1:at}.",
            "No, the instrument {0:at} is not more rhythmic than the instrument {1:at}.",
        ),
        (
            "Yes, the {0} instrument is more rhythmic than the {1} one.",
            "No, the {0} instrument is not more rhythmic than the {1} one.",
        ),
        (
            "Yes, the instrument {0:at} sounds more rhythmic than the one {1:at}.",
            "No, the instrument {0:at} does not sound more rhythmic than the one {1:at}.",
        ),
        (
            "Yes, compared with the instrument {1:at}, the one {0:at} is more rhythmic.",
            "No, compared with the instrument {1:at}, the one {0:at} is not more rhythmic.",
        ),
    ),
    "Is the <Object> in the video always playing?": (
        (
            "Yes, the {0} in the video {0|is|are} always playing.",
            "No, the {0} in the video {0|is|are} not always playing.",
        ),
        (
            "Yes, the {0} {0|plays|play} all the time.",
            "No, the {0} {0|does|do} not play all the time.",
        ),
        (
            "Yes, the {0} {0|plays|play} throughout the video.",
            "No, the {0} {0|does|do} not play throughout the video.",
        ),
        (
            "Yes, the {0} can be heard for the whole length of the video.",
            "No, the {0} cannot be heard for the whole length of the video.",
        ),
    ),
    "Is there a voiceover?": (
        ("Yes, there is a voiceover.", "No, there is no voiceover."),
        ("Yes, the video has a voiceover.", "No, the video does not have a voiceover."),
        ("Yes, a voiceover can be heard.", "No, a voiceover cannot be heard."),
        ("Yes, somebody speaks over the video.", "No, nobody speaks over the video."),
    ),
    "Is this sound from the instrument in the video?": (
        (
            "Yes, this sound is from the instrument in the video.",
            "No, this sound is not from the instrument in the video.",
        ),
        (
            "Yes, the sound comes from the instrument that is seen.",
            "No, the sound does not come from the instrument that is seen.",
        ),
        (
            "Yes, the instrument in the video makes this sound.",
            "No, the instrument in the video does not make this sound.",
        ),
        (
            "Yes, what is heard is the instrument in the picture.",
            "No, what is heard is not the instrument in the picture.",
        ),
    ),
    "Is the <FL> sound coming from the <LR> instrument?": (
        (
            "Yes, the {0} sound is coming from the {1} instrument.",
            "No, the {0} sound is not coming from the {1} instrument.",
        ),
        (
            "Yes, the {0} sound comes from the instrument {1:at}.",
            "No, the {0} sound does not come from the instrument {1:at}.",
        ),
        (
            "Yes, the {1} instrument makes the {0} sound.",
            "No, the {1} instrument does not make the {0} sound.",
        ),
        (
            "Yes, it is the instrument {1:at} that sounds {0}.",
            "No, it is not the instrument {1:at} that sounds {0}.",
        ),
    ),
    "Are there <Object> and <Object> instruments in the video?": (
        (
            "Yes, there are both {0} and {1} instruments in the video.",
            "No, there are not both {0} and {1} instruments in the video.",
        ),
        (
            "Yes, the {0} and the {1} can both be seen.",
            "No, the {0} and the {1} cannot both be seen.",
        ),
        (
            "Yes, the video shows both {0:a} and {1:a}.",
            "No, the video does not show both {0:a} and {1:a}.",
        ),
        (
            "Yes, {0:a} and {1:a} both appear in the video.",
            "No, {0:a} and {1:a} do not both appear in the video.",
        ),
    ),
    "Is there a <Object> in the entire video?": (
        ("Yes, there is {0:a} in the video.", "No, there is no {0:n} in the entire video."),
        ("Yes, {0:a} can be seen in the video.", "No, {0:a} cannot be seen in the video."),
        ("Yes, the video shows {0:a}.", "No, the video does not show {0:a}."),
        ("Yes, {0:a} appears in the video.", "No, {0:a} does not appear in the video."),
    ),
}
"""Pairs for yes and no."""

COUNTS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "How many musical instruments were heard throughout the video?": (
        (
            "Zero musical instruments were heard throughout the video.",
            "One musical instrument was heard throughout the video.",
            "{=} musical instruments were heard throughout the video.",
        ),
        (
            "There are no musical instruments to be heard: zero.",
            "There is one musical instrument to be heard.",
            "There are {=} musical instruments to be heard.",
        ),
        (
            "The number of musical instruments heard in the video is zero.",
            "The number of musical instruments heard in the video is one.",
            "The number of musical instruments heard in the video is {=}.",
        ),
        (
            "I hear zero musical instruments in the video.",
            "I hear one musical instrument in the video.",
            "I hear {=} musical instruments in the video.",
        ),
    ),
    "How many instruments are sounding in the video?": (
        (
            "Zero instruments are sounding in the video.",
            "One instrument is sounding in the video.",
            "{=} instruments are sounding in the video.",
        ),
        (
            "There are no instruments sounding in the video: zero.",
            "There is one instrument sounding in the video.",
            "There are {=} instruments sounding in the video.",
        ),
        (
            "The number of sounding instruments is zero.",
            "The number of sounding instruments is one.",
            "The number of sounding instruments is {=}.",
        ),
        (
            "In the video, zero instruments sound.",
            "In the video, one instrument sounds.",
            "In the video, {=} instruments sound.",
        ),
    ),
    "How many instruments in the video did not sound from beginning to end?": (
        (
            "Zero instruments in the video did not sound from beginning to end.",
            "One instrument in the video did not sound from beginning to end.",
            "{=} instruments in the video did not sound from beginning to end.",
        ),
        (
            "There are zero instruments that did not sound from beginning to end.",
            "There is one instrument that did not sound from beginning to end.",
            "There are {=} instruments that did not sound from beginning to end.",
        ),
        (
            "The number of instruments that did not sound from beginning to end is zero.",
            "The number of instruments that did not sound from beginning to end is one.",
            "The number of instruments that did not sound from beginning to end is {=}.",
        ),
        (
            "Of the instruments in the video, zero did not sound from beginning to end.",
            "Of the instruments in the video, one did not sound from beginning to end.",
            "Of the instruments in the video, {=} did not sound from beginning to end.",
        ),
    ),
    "How many sounding <Object> in the video\uff1f": (
        (
            "Zero {0:s} are sounding in the video.",
            "One {0:n} is sounding in the video.",
            "{=} {0:s} are sounding in the video.",
        ),
        (
            "There are no sounding {0:s} in the video: zero.",
            "There is one sounding {0:n} in the video.",
            "There are {=} sounding {0:s} in the video.",
        ),
        (
            "The number of sounding {0:s} is zero.",
            "The number of sounding {0:s} is one.",
            "The number of sounding {0:s} is {=}.",
        ),
        (
            "Zero of them are sounding.",
            "One of them is sounding.",
            "{=} of them are sounding.",
        ),
    ),
    "How many types of musical instruments sound in the video?": (
        (
            "Zero types of musical instruments sound in the video.",
            "One type of musical instrument sounds in the video.",
            "{=} types of musical instruments sound in the video.",
        ),
        (
            "There are no types of instruments to be heard: zero.",
            "There is one type of instrument to be heard.",
            "There are {=} types of instruments to be heard.",
        ),
        (
            "The number of instrument types that sound is zero.",
            "The number of instrument types that sound is one.",
            "The number of instrument types that sound is {=}.",
        ),
        (
            "In the video, instruments of zero types sound.",
            "In the video, instruments of one type sound.",
            "In the video, instruments of {=} types sound.",
        ),
    ),
    "How many <Object> are in the entire video?": (
        (
            "Zero {0:s} are in the entire video.",
            "One {0:n} is in the entire video.",
            "{=} {0:s} are in the entire video.",
        ),
        (
            "There are no {0:s} in the entire video: zero.",
            "There is one {0:n} in the entire video.",
            "There are {=} {0:s} in the entire video.",
        ),
        (
            "The number of {0:s} in the video is zero.",
            "The number of {0:s} in the video is one.",
            "The number of {0:s} in the video is {=}.",
        ),
        (
            "Zero of them can be seen in the video.",
            "One of them can be seen in the video.",
            "{=} of them can be seen in the video.",
        ),
    ),
    "How many types of musical instruments appeared in the entire video?": (
        (
            "Zero types of musical instruments appeared in the entire video.",
            "One type of musical instrument appeared in the entire video.",
            "{=} types of musical instruments appeared in the entire video.",
        ),
        (
            "There are no types of instruments to be seen: zero.",
            "There is one type of instrument to be seen.",
            "There are {=} types of instruments to be seen.",
        ),
        (
            "The number of instrument types in the video is zero.",
            "The number of instrument types in the video is one.",
            "The number of instrument types in the video is {=}.",
        ),
        (
            "The video shows zero types of musical instruments.",
            "The video shows one type of musical instrument.",
            "The video shows {=} types of musical instruments.",
        ),
    ),
}
"""Triples for zero, one and more."""

NAMED: dict[str, tuple[str, ...]] = {
    "What is the <LR> instrument of the <FL> sounding instrument?": (
        "The instrument {0:at} of the {1} sounding instrument is {=:a}.",
        "{0:at} of the {1} sounding instrument {=|is|are} the {=}.",
        "The {=} {=|is|are} {0:at} of the instrument that sounds {1}.",
        "It is the {=}.",
    ),
    "Which is the musical instrument that sounds at the same time as the <Object>?": (
        "The {=} {=|sounds|sound} at the same time as the {0}.",
        "The instrument that sounds at the same time as the {0} is {=:a}.",
        "At the same time as the {0}, the {=} {=|sounds|sound}.",
        "It is the {=}.",
    ),
    "What is the <TH> instrument that comes in?": (
        "The {0} instrument that comes in is {=:a}.",
        "The {=} {=|is|are} the {0} to come in.",
        "The {=} {=|comes|come} in {0}.",
        "It is the {=}.",
    ),
    "Which instrument makes sounds <BA> the <Object>?": (
        "The {=} {=|makes|make} sounds {0} the {1}.",
        "The instrument that makes sounds {0} the {1} is {=:a}.",
        "{0} the {1}, it is the {=} that {=|makes|make} sounds.",
        "It is the {=}.",
    ),
    "What is the instrument on the <LR> of <Object>?": (
        "The instrument {0:at} of the {1} is {=:a}.",
        "{0:at} of the {1} there is {=:a}.",
        "The {=} {=|is|are} {0:at} of the {1}.",
        "It is {=:a}.",
    ),
    "What kind of instrument is the <LRer> instrument?": (
        "The {0} instrument is {=:a}.",
        "The {=} {=|is|are} the {0} of the instruments.",
        "In the {0} position there is {=:a}.",
        "It is {=:a}.",
    ),
    "What kind of musical instrument is it?": (
        "It is {=:a}.",
        "The musical instrument is {=:a}.",
        "The instrument in the video is {=:a}.",
        "This is {=:a}.",
    ),
    "Where is the <LL> instrument?": (
        "The {0} instrument is {=:at}.",
        "The {0} instrument can be found {=:at}.",
        "The {0} of the instruments is {=:at}.",
        "It is {=:at}.",
    ),
    "Where is the <FL> sounding instrument?": (
        "The {0} sounding instrument is {=:at}.",
        "The instrument that sounds {0} is {=:at}.",
        "The {0} instrument to sound can be found {=:at}.",
        "It is {=:at}.",
    ),
    "Which <Object> makes the sound <FL>?": (
        "The {0} {=:at} {0|makes|make} the sound {1}.",
        "The {0} that {0|sounds|sound} {1} {0|is|are} {=:at}.",
        "The {1} sound comes from the {0} {=:at}.",
        "It is the one {=:at}.",
    ),
    "Where is the performance?": (
        "The performance is {=:adverb}.",
        "The performance takes place {=:adverb}.",
        "The musicians perform {=:adverb}.",
        "It is an {=} performance.",
    ),
}
"""For an answer that is an instrument, a side or a place."""

SIMULTANEOUSLY: tuple[str, ...] = (
    "The {0:s} make the sound simultaneously.",
    "The {0:s} sound simultaneously, so all of them are {1}.",
    "All of the {0:s} come in simultaneously.",
    "They make the sound simultaneously.",
)
"""For `Which <Object> makes the sound <FL>?` where it is all of them at once."""
