"use strict";
// The browser of answers. All texts are other people's: they become text nodes, never markup.
(() => {
  const PAGE = 25;
  const FIELDS = [
    "row", "video", "type", "template", "question", "gold", "label", "outcome", "answer",
    "probability", "alternatives", "consumed", "evidence", "warnings", "probes", "others", "sound_of",
  ];
  const FLIP = "_flip";
  const WORDS = ["wrong", "right", "no answer"];
  const MARKS = ["✕", "✓", "○"];
  const data = JSON.parse(document.getElementById("data").textContent);
  const form = document.getElementById("filters");
  const list = document.getElementById("list");
  const dialog = document.getElementById("one");
  const samples = data.samples.map(unpack);
  let shown = samples;
  let page = 0;
  let opened = -1;
  let stopFollowing = () => {};

  function text(number) {
    return number === null ? null : data.strings[number];
  }

  function spoken(own, label) {
    return own === 0 ? label : own;
  }

  function unpack(raw) {
    const one = {};
    FIELDS.forEach((name, place) => { one[name] = raw[place]; });
    for (const name of ["video", "type", "template", "gold", "label", "sound_of"]) one[name] = text(one[name]);
    one.answer = spoken(one.answer, one.label);
    one.alternatives = one.alternatives.map(([label, share]) => ({ label: text(label), share }));
    one.evidence = one.evidence.map(([picture, start, end, weight, ...region]) => (
      { modality: picture ? "picture" : "sound", start, end, weight, region }));
    one.warnings = one.warnings.map(text);
    one.probes = one.probes.map(([probe, expected, label, own, probability, question]) => ({
      probe: text(probe), expected: text(expected), label: text(label), probability,
      answer: spoken(own, text(label)), question: question || one.question,
    }));
    one.others = one.others.map((other) => other && ({
      label: text(other[0]), outcome: other[1], answer: spoken(other[2], text(other[0])),
      probability: other[3],
    }));
    one.words = [one.question, one.answer, one.gold, one.label, one.video]
      .join("\n").toLowerCase().replaceAll("_", " ");
    return one;
  }

  // --- small helpers ---------------------------------------------------------------------

  function make(name, options = {}, ...content) {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(options)) {
      if (key === "class") node.className = value;
      else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
      else node.setAttribute(key, value);
    }
    node.append(...content.filter((part) => part !== null && part !== undefined));
    return node;
  }

  const percent = (share) => (share === null ? "–" : `${(100 * share).toFixed(2)}\u00a0%`);
  const plain = (label) => (label === null ? "–" : label.replaceAll("_", " "));
  const seconds = (time) => `${time.toFixed(1)} s`;
  const amount = (number) => number.toLocaleString("en");

  function outcome(kind) {
    return make("span", { class: `outcome o${kind}` },
      make("span", { "aria-hidden": "true" }, MARKS[kind]), ` ${WORDS[kind]}`);
  }

  // --- filters ---------------------------------------------------------------------------

  function choices(name, values, shownAs = (value) => value) {
    const select = form.elements[name];
    const options = [["", "any"], ...[...new Set(values)].filter((value) => value !== null).sort()
      .map((value) => [value, shownAs(value)])];
    select.replaceChildren(...options.map(([value, words]) => make("option", { value }, words)));
    select.closest("label").hidden = options.length < 2;
  }

  function runChoices() {
    const first = data.runs[0].name;
    const options = data.runs.slice(1).flatMap((run, at) => [
      [`${at}:1:0`, `${first} right, ${run.name} wrong`],
      [`${at}:0:1`, `${first} wrong, ${run.name} right`],
      [`${at}:1:1`, `both right (${run.name})`],
      [`${at}:0:0`, `both wrong (${run.name})`],
    ]);
    const all = [["", "any"], ...options];
    form.elements.runs.replaceChildren(
      ...all.map(([value, words]) => make("option", { value }, words)));
  }

  function cites(one, what) {
    const sound = one.evidence.some((part) => part.modality === "sound");
    const picture = one.evidence.some((part) => part.modality === "picture");
    switch (what) {
      case "sound": return sound;
      case "picture": return picture;
      case "both": return sound && picture;
      case "none": return !sound && !picture;
      case "deaf": return one.consumed !== null && one.consumed[0] < 0;
      case "blind": return one.consumed !== null && one.consumed[1] < 0;
      default: return true;
    }
  }

  function agrees(one, wanted) {
    const [at, mine, theirs] = wanted.split(":").map(Number);
    const other = one.others[at];
    return Boolean(other) && (one.outcome === 1) === Boolean(mine)
      && (other.outcome === 1) === Boolean(theirs);
  }

  function wanted() {
    const value = (name) => form.elements[name].value;
    const outcomes = value("outcome").split(",").filter(Boolean).map(Number);
    const words = value("text").toLowerCase().replaceAll("_", " ").split(/\s+/).filter(Boolean);
    return (one) => (!outcomes.length || outcomes.includes(one.outcome))
      && ["type", "template", "gold", "label"].every((name) => !value(name) || one[name] === value(name))
      && (!value("probe") || one.probes.some((part) => part.probe === value("probe")))
      && (!value("evidence") || cites(one, value("evidence")))
      && (!value("runs") || agrees(one, value("runs")))
      && words.every((word) => one.words.includes(word));
  }

  function ordered(found) {
    const order = form.elements.order.value;
    if (order === "row") return found;
    // Where nobody said a probability, the answer goes last in both orders.
    const way = order === "sure" ? -1 : 1;
    const place = (one) => (one.probability === null ? Infinity : way * one.probability);
    return found.sort((a, b) => place(a) - place(b) || a.row - b.row);
  }

  function search() {
    shown = ordered(samples.filter(wanted()));
    page = 0;
    render();
  }

  // --- the list --------------------------------------------------------------------------

  function item(one, place) {
    const said = one.outcome === 2 ? `“${one.answer.slice(0, 80)}”` : plain(one.label);
    const given = one.outcome === 1 ? [make("b", {}, said)]
      : [make("b", {}, said), " for ", make("b", {}, plain(one.gold))];
    return make("li", {}, make("button", { type: "button", class: "answer", onclick: () => open(place) },
      outcome(one.outcome),
      make("span", { class: "question" }, one.question),
      make("span", { class: "said" }, ...given),
      make("span", { class: "share" }, percent(one.probability)),
      make("small", {}, `${one.type} · ${one.video} · row ${one.row}`)));
  }

  function render() {
    const pages = Math.max(1, Math.ceil(shown.length / PAGE));
    page = Math.min(Math.max(page, 0), pages - 1);
    const start = page * PAGE;
    list.replaceChildren(...shown.slice(start, start + PAGE).map((one, n) => item(one, start + n)));
    list.start = start + 1;
    const right = shown.filter((one) => one.outcome === 1).length;
    document.getElementById("found").textContent = shown.length
      ? `${amount(shown.length)} ${shown.length === 1 ? "answer" : "answers"}${right ? `, ${amount(right)} of them right` : ""}`
      : "No answer fits all of these filters.";
    document.getElementById("place").textContent = `page ${amount(page + 1)} of ${amount(pages)}`;
    document.getElementById("back").disabled = page === 0;
    document.getElementById("on").disabled = page === pages - 1;
  }

  function turn(by) {
    page += by;
    render();
    form.scrollIntoView({ block: "nearest" });
  }

  // --- one answer ------------------------------------------------------------------------

  function open(place) {
    stopFollowing();
    opened = place;
    const one = shown[place];
    const move = (by, words, label) => make("button", {
      type: "button", "aria-label": label, onclick: () => step(by),
      ...(shown[place + by] ? {} : { disabled: "" }),
    }, words);
    const bar = make("div", { class: "bar-of-one" },
      make("span", {}, outcome(one.outcome), make("small", {}, ` ${amount(place + 1)} of ${amount(shown.length)}`)),
      make("span", {}, move(-1, "←", "Previous answer"), move(1, "→", "Next answer"),
        make("button", { type: "button", "aria-label": "Close", onclick: () => dialog.close() }, "✕")));
    const title = make("h3", { id: "one-title" }, one.question);
    const where = make("p", { class: "where" },
      [one.type, one.template, one.video, `row ${one.row}`].filter(Boolean).join(" · "));
    dialog.replaceChildren(bar, title, where, make("div", { class: "two" },
      make("div", {}, ...player(one)), make("div", {}, ...facts(one))));
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
  }

  function step(by) {
    if (shown[opened + by]) open(opened + by);
  }

  function facts(one) {
    const rows = [["Gold", plain(one.gold)], ["Answered", plain(one.label)]];
    if (one.answer !== one.label) rows.push(["In its words", `“${one.answer}”`]);
    one.others.forEach((other, at) => {
      const words = other ? `${plain(other.label)} (${WORDS[other.outcome]}, ${percent(other.probability)})` : "not asked";
      rows.push([data.runs[at + 1].name, words]);
    });
    if (one.consumed) rows.push(["Reached the model", consumed(one.consumed)]);
    const parts = [make("dl", {}, ...rows.flatMap(([name, value], at) => (
      [make("dt", {}, name), make("dd", { class: at < 2 ? "main" : "" }, value)])))];
    if (one.probability !== null) parts.push(ranking(one));
    for (const warning of one.warnings) parts.push(make("p", { class: "loud" }, warning));
    if (one.probes.length) parts.push(probes(one));
    return parts;
  }

  function consumed([sound, picture]) {
    const said = (name, tokens) => (tokens < 0 ? `no ${name}` : `${name} (${amount(tokens)} tokens)`);
    return `${said("sound", sound)}, ${said("picture", picture)}`;
  }

  function ranking(one) {
    const all = [{ label: one.label, share: one.probability }, ...one.alternatives];
    const rows = all.map(({ label, share }) => {
      const fill = make("span", { class: "fill" });
      fill.style.width = `${100 * Math.min(Math.max(share ?? 0, 0), 1)}%`;
      const gold = label === one.gold ? make("small", {}, " gold") : null;
      return make("tr", {}, make("th", { scope: "row" }, plain(label), gold),
        make("td", { class: "meter" }, fill), make("td", {}, percent(share)));
    });
    return make("table", { class: "ranking" }, make("caption", {}, "Probability"), ...rows);
  }

  function probes(one) {
    const head = ["change", "answered", "expected"];
    const rows = one.probes.map((part) => make("tr", {},
      make("th", { scope: "row" }, part.probe,
        part.question === one.question ? null : make("small", {}, `asked: ${part.question}`)),
      make("td", {}, `${plain(part.label)} ${part.probability === null ? "" : percent(part.probability)}`,
        part.answer === part.label ? null : make("small", {}, `“${part.answer}”`)),
      make("td", {}, part.expected === null ? "not known" : plain(part.expected))));
    return make("details", { open: "" }, make("summary", {}, `After ${one.probes.length} changes`),
      make("div", { class: "scroll" }, make("table", { class: "after" },
        make("thead", {}, make("tr", {}, ...head.map((name) => make("th", { scope: "col" }, name)))),
        make("tbody", {}, ...rows))));
  }

  // --- the clip and its evidence ---------------------------------------------------------

  function files(video) {
    // Where the clip lies; a mirrored one may be there only as the clip that it mirrors.
    if (Object.hasOwn(data.files, video)) return [data.files[video]];
    const names = [video];
    if (video.endsWith(FLIP)) names.push(video.slice(0, -FLIP.length));
    return names.map((name) => `${encodeURIComponent(name)}.mp4`);
  }

  function readable(address) {
    try {
      return decodeURIComponent(address);
    } catch {
      return address;
    }
  }

  function player(one) {
    const folder = data.runs[0].media;
    const other = one.sound_of === null ? [] : [make("p", { class: "say" },
      `The answer was given with the sound of ${one.sound_of}.${folder === null ? "" : " Here the clip plays its own sound."}`)];
    if (folder === null) {
      return [make("p", { class: "no-clip" }, "This run names no media folder, so there is no clip to play."),
        ...other, ...timeline(one, null)];
    }
    const places = files(one.video);
    const video = make("video", { controls: "", preload: "none", playsinline: "" });
    const stage = make("div", { class: "stage" }, video);
    const message = make("p", { class: "no-clip", hidden: "" },
      `The clip is not where the run had it, or cannot be played here: ${readable(folder + places[0])}`);
    const unmirrored = make("p", { class: "say", hidden: "" },
      "The question is about the mirrored clip. The clip is shown unmirrored.");
    let place = 0;
    const load = () => {
      video.src = folder + places[place];
      const name = readable(places[place]).split("/").pop().replace(/\.[^.]*$/, "");
      unmirrored.hidden = !one.video.endsWith(FLIP) || name === one.video;
    };
    video.addEventListener("error", () => {
      place += 1;
      if (place < places.length) {
        load();
      } else {
        stage.hidden = true;
        unmirrored.hidden = true;
        message.hidden = false;
      }
    });
    load();
    video.addEventListener("loadedmetadata", () => {
      if (video.videoWidth) stage.style.aspectRatio = `${video.videoWidth} / ${video.videoHeight}`;
    });
    for (const part of one.evidence) if (part.region.length) stage.append(box(part, video));
    // One clip is on the page at a time: its first picture may come at once.
    video.preload = "metadata";
    return [stage, message, unmirrored, ...other, ...timeline(one, video)];
  }

  function box(part, video) {
    const [left, top, right, bottom] = part.region;
    const node = make("div", { class: "region" }, make("span", {}, part.weight.toFixed(2)));
    Object.assign(node.style, {
      left: `${100 * left}%`, top: `${100 * top}%`,
      width: `${100 * (right - left)}%`, height: `${100 * (bottom - top)}%`,
    });
    const follow = () => {
      const now = video.currentTime;
      node.classList.toggle("now", now >= part.start - 0.05 && now <= part.end + 0.05);
    };
    video.addEventListener("timeupdate", follow);
    video.addEventListener("seeked", follow);
    follow();
    return node;
  }

  function timeline(one, video) {
    if (!one.evidence.length) return [make("p", { class: "say" }, "No evidence is on record for this answer.")];
    const last = Math.max(0.1, ...one.evidence.map((part) => part.end));
    const lanes = make("div", { class: "lanes" });
    const marks = [];
    for (const modality of ["sound", "picture"]) {
      const parts = one.evidence.filter((part) => part.modality === modality);
      if (!parts.length) continue;
      const lane = make("div", { class: `lane ${modality}` });
      for (const part of parts) {
        const words = `${modality} from ${seconds(part.start)} to ${seconds(part.end)}, weight ${part.weight.toFixed(2)}`;
        const mark = make("button", { type: "button", title: words, "aria-label": words, onclick: () => seek(video, part.start) });
        mark.style.opacity = 0.35 + 0.65 * Math.min(1, part.weight);
        marks.push([mark, part]);
        lane.append(mark);
      }
      lanes.append(make("span", { class: "lane-name" }, modality), lane);
    }
    const end = make("span", { class: "end" }, seconds(last));
    const place = (length) => {
      for (const [mark, part] of marks) {
        mark.style.left = `${100 * part.start / length}%`;
        mark.style.width = `max(6px, ${100 * (part.end - part.start) / length}%)`;
      }
      end.textContent = seconds(length);
    };
    place(last);
    const head = make("div", { class: "head-of-play" });
    const follow = () => { head.style.left = `${100 * video.currentTime / Math.max(last, video.duration || 0)}%`; };
    if (video) {
      video.addEventListener("loadedmetadata", () => place(Math.max(last, video.duration || 0)));
      video.addEventListener("timeupdate", follow);
      video.addEventListener("seeked", follow);
      stopFollowing = () => video.pause();
      for (const lane of lanes.querySelectorAll(".lane")) lane.append(head.cloneNode());
      const heads = lanes.querySelectorAll(".head-of-play");
      video.addEventListener("timeupdate", () => {
        for (const each of heads) each.style.left = head.style.left;
      });
    }
    const scale = make("div", { class: "lane-scale" }, make("span", {}, "0.0 s"), end);
    return [make("div", { class: "evidence" }, make("h4", {}, "What it rests on"), lanes, scale,
      make("p", { class: "say" }, video ? "Choose a part to go there. Stronger colour: more weight." : "Stronger colour: more weight."))];
  }

  function seek(video, time) {
    if (!video) return;
    // Before the length is known, a new time is kept and used when it is.
    video.currentTime = time;
    video.play().catch(() => {});
  }

  // --- start -----------------------------------------------------------------------------

  choices("type", samples.map((one) => one.type));
  choices("template", samples.map((one) => one.template));
  choices("gold", samples.map((one) => one.gold), plain);
  choices("label", samples.map((one) => one.label), plain);
  choices("probe", samples.flatMap((one) => one.probes.map((part) => part.probe)));
  if (data.runs.length > 1) runChoices();
  form.elements.outcome.value = samples.some((one) => one.outcome !== 1) ? "0,2" : "";
  form.addEventListener("input", search);
  form.elements.runs.addEventListener("input", () => {
    // It speaks of outcomes itself; another filter on them would leave nothing.
    if (form.elements.runs.value) form.elements.outcome.value = "";
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(search));
  document.getElementById("back").addEventListener("click", () => turn(-1));
  document.getElementById("on").addEventListener("click", () => turn(1));
  dialog.addEventListener("close", () => { stopFollowing(); dialog.replaceChildren(); });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("keydown", (event) => {
    if (["VIDEO", "INPUT", "SELECT"].includes(event.target.tagName)) return;
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  for (const link of document.querySelectorAll("a.choose")) {
    link.addEventListener("click", () => {
      form.reset();
      for (const [name, value] of Object.entries(link.dataset)) {
        const select = form.elements[name];
        // What is not in the page cannot be chosen; then all are shown.
        if (select && [...select.options].some((option) => option.value === value)) select.value = value;
      }
      setTimeout(search);
    });
  }
  search();
})();
