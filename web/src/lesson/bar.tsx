// The narration's controls, always at the bottom of the page.
import { clockTime, elapsed } from "./elapsed";
import { helpOpen } from "./help";
import { Icon } from "./icons";
import type { ClockName } from "./narrator";
import {
  back,
  captions,
  finished,
  following,
  narration,
  notice,
  progress,
  setClock,
  SPEEDS,
  state,
  step,
  text,
  toggle,
} from "./state";

const VOICES: [ClockName, string][] = [
  ["audio", "Recorded voice"],
  ["speech", "Browser’s voice"],
  ["silent", "Silent, captions"],
];

export function Bar() {
  const now = state.value;
  const lesson = text.value;
  if (!now || !lesson) return null;
  const playing = now.status === "playing";
  const last = lesson.paragraphs.length - 1;
  return (
    <section class="narration" aria-label="Narration" data-testid="narration">
      {now.status !== "idle" && !following.value && (
        <button class="return primary" data-testid="return" onClick={back}>
          <Icon name="back" /> Return to narration
        </button>
      )}
      {notice.value && (
        <p class="notice warn voice-notice" role="status" data-testid="notice">
          {notice.value}{" "}
          <button class="plain" aria-label="Put this notice away" onClick={() => (notice.value = "")}>
            ✕
          </button>
        </p>
      )}
      {captions.value && now.status !== "idle" && (
        <p class="caption" data-testid="caption">
          {now.caption}
        </p>
      )}
      <Track />
      <div class="controls">
        <div class="transport">
          <button
            class="round"
            aria-label="Previous paragraph"
            title="Previous paragraph (← or j)"
            data-testid="previous"
            disabled={now.paragraph === 0}
            onClick={() => step(-1)}
          >
            <Icon name="previous" />
          </button>
          <button
            class="round primary"
            aria-label={playing ? "Pause" : "Play"}
            title={`${playing ? "Pause" : "Play"} (space or k)`}
            data-testid="play"
            onClick={toggle}
          >
            <Icon name={playing ? "pause" : "play"} />
          </button>
          <button
            class="round"
            aria-label="Next paragraph"
            title="Next paragraph (→ or l)"
            data-testid="next"
            disabled={now.paragraph === last}
            onClick={() => step(1)}
          >
            <Icon name="next" />
          </button>
        </div>
        <p class="where">
          <span class="progress" data-testid="progress" title="paragraphs finished">
            {progress.value}
          </span>
          <span class="what">
            {now.paragraph + 1}. {lesson.paragraphs[now.paragraph]?.title}
          </span>
          <Time />
        </p>
        <div class="choices">
          <label>
            <span class="hidden">Speed</span>
            <select
              data-testid="speed"
              title="Speed (< and >)"
              value={String(now.speed)}
              onChange={(event) => narration()?.setSpeed(Number(event.currentTarget.value))}
            >
              {(SPEEDS.includes(now.speed) ? SPEEDS : [...SPEEDS, now.speed]).map((speed) => (
                <option value={String(speed)}>{speed} ×</option>
              ))}
            </select>
          </label>
          <label>
            <span class="hidden">Voice</span>
            <select
              data-testid="voice"
              title="Who reads"
              value={now.clock}
              onChange={(event) => setClock(event.currentTarget.value as ClockName)}
            >
              {VOICES.map(([name, said]) => (
                <option value={name} disabled={name === "audio" && !lesson.audio}>
                  {said}
                </option>
              ))}
            </select>
          </label>
          <button
            aria-pressed={captions.value}
            aria-label="Captions"
            title="Captions (c)"
            data-testid="captions"
            onClick={() => (captions.value = !captions.value)}
          >
            <Icon name="captions" />
          </button>
          <button
            aria-label="Help and keyboard"
            title="Help (?)"
            data-testid="help"
            onClick={() => (helpOpen.value = true)}
          >
            ?
          </button>
        </div>
      </div>
    </section>
  );
}

/** One piece per paragraph: full when finished, filling while it is read. */
function Track() {
  const now = state.value;
  const { at, of } = elapsed.value;
  return (
    <div class="track" aria-hidden="true">
      {text.value?.paragraphs.map((_, i) => {
        const here = now?.paragraph === i;
        const part = here && of > 0 ? at / of : 0;
        return (
          <span class={`${finished.value.includes(i) ? "done" : ""}${here ? " here" : ""}`}>
            <i style={{ width: `${Math.round(1000 * part) / 10}%` }} />
          </span>
        );
      })}
    </div>
  );
}

function Time() {
  const { at, of } = elapsed.value;
  return (
    <span
      class="time"
      data-testid="time"
      aria-label={`${clockTime(at)} of ${clockTime(of)} in this paragraph`}
      role="img"
    >
      {clockTime(at)} / {clockTime(of)}
    </span>
  );
}
