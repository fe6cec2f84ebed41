"use strict";
/* Buttons with data-seek move the video inside the element that data-player names, and let it
   play a little. One listener for the whole page: panels come and go. */
(() => {
  const LITTLE_S = 3;
  let playing = null; // { video, until, button, ours: our own move is under way }

  const videoOf = (id) => (id ? document.getElementById(id)?.querySelector("video") : null);

  function say(text) {
    let place = document.getElementById("av-said");
    if (!place) {
      place = document.createElement("div");
      place.id = "av-said";
      place.className = "av-hidden";
      place.setAttribute("role", "status");
      place.setAttribute("aria-live", "polite");
      document.body.append(place);
    }
    place.textContent = text;
  }

  function leave() {
    playing?.button?.classList.remove("av-now");
    playing = null;
  }

  function seek(id, from, until, button) {
    const video = videoOf(id);
    if (!video) return say("There is no video to play.");
    leave();
    const end = until > from ? until : from + LITTLE_S;
    playing = { video, until: end, button };
    button?.classList.add("av-now");
    const start = () => {
      if (playing?.button !== button) return; // another moment was chosen meanwhile
      playing.ours = true;
      video.currentTime = from;
      video.play().catch(() => say("The browser did not let the video play; it stands at the place."));
    };
    if (video.readyState >= 1) start();
    else {
      video.addEventListener("loadedmetadata", start, { once: true });
      video.load();
    }
    say(`Playing from ${from.toFixed(1)} to ${end.toFixed(1)} seconds.`);
  }

  function onClick(event) {
    const target = event.target instanceof Element ? event.target : null;
    const button = target?.closest("[data-seek]");
    if (button) {
      const from = Number(button.dataset.seek);
      if (Number.isFinite(from) && from >= 0) {
        seek(button.dataset.player, from, Number(button.dataset.until), button);
      }
      return;
    }
    const strip = target?.closest(".av-strip[data-player]");
    if (!strip) return; // elsewhere on a strip: play from there, for the mouse
    const box = strip.getBoundingClientRect();
    const part = (event.clientX - box.left) / Math.max(1, box.width);
    seek(strip.dataset.player, Number(strip.dataset.starts) + part * Number(strip.dataset.lasts), NaN, null);
  }

  function onTime(event) {
    const video = event.target;
    if (!(video instanceof HTMLVideoElement)) return;
    if (playing?.video === video && video.currentTime >= playing.until) {
      video.pause();
      leave();
    }
    for (const strip of document.querySelectorAll(".av-strip[data-player]")) {
      if (videoOf(strip.dataset.player) !== video) continue;
      const at = (video.currentTime - Number(strip.dataset.starts)) / Number(strip.dataset.lasts);
      strip.classList.toggle("av-live", at >= 0 && at <= 1);
      strip.style.setProperty("--at", String(Math.min(1, Math.max(0, at))));
    }
  }

  function onMoved(event) {
    if (playing?.video !== event.target) return;
    if (playing.ours) playing.ours = false;
    else leave(); // somebody moved the player by hand: it is theirs again, and is not stopped
  }

  document.addEventListener("click", onClick);
  document.addEventListener("timeupdate", onTime, true);
  document.addEventListener("seeking", onMoved, true);
})();
