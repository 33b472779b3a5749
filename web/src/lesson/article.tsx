// The text of a lesson: paragraphs of sentences, each paragraph beside its figure.
import { useEffect, useRef, useState } from "preact/hooks";
import { Formula, Words } from "../core/tex";
import { stillness } from "../core/theme";
import { Icon } from "./icons";
import { Figure } from "./figures/index";
import type { Lesson, Paragraph, Sentence } from "./narrator";
import { finished, following, jump, look, narration, state } from "./state";

export function Article({ lesson }: { lesson: Lesson }) {
  useFollowing();
  return (
    <article class="article" data-testid="article">
      {lesson.paragraphs.map((paragraph, i) => (
        <Section key={i} paragraph={paragraph} index={i} />
      ))}
    </article>
  );
}

/** The page scrolls along while the narration goes on, and whenever somebody asks to be shown where it stands. */
function useFollowing(): void {
  const asked = look.value;
  useEffect(() => {
    if (asked === 0 || !following.peek()) return;
    const now = state.peek();
    const sentence = now && document.querySelector<HTMLElement>(`[data-sentence="${now.paragraph}.${now.sentence}"]`);
    const section = now && document.getElementById(`paragraph-${now.paragraph + 1}`);
    if (!sentence || !section) return;
    const behavior = stillness.matches ? "auto" : "smooth";
    const bar = document.querySelector(".narration")?.getBoundingClientRect().height ?? 0;
    const room = innerHeight - bar;
    const { top, bottom } = sentence.getBoundingClientRect();
    if (top >= 0.08 * room && bottom <= 0.85 * room) return;
    const start = section.getBoundingClientRect().top;
    // A paragraph's beginning comes to the top if the sentence is then in sight, so that the figure is seen beside it.
    const shift = bottom - start < 0.8 * room ? start - 16 : top - 0.3 * room;
    scrollBy({ top: shift, behavior });
  }, [asked]);
}

function Section({ paragraph, index }: { paragraph: Paragraph; index: number }) {
  const here = state.value?.paragraph === index;
  const done = finished.value.includes(index);
  const number = index + 1;
  const title = `title-${number}`;
  const said = `${here && state.value?.status === "playing" ? "Being read" : "Listen from here"}: paragraph ${number}, ${paragraph.title}${done ? " (finished)" : ""}`;
  return (
    <section
      class={`paragraph${here ? " here" : ""}`}
      id={`paragraph-${number}`}
      aria-labelledby={title}
      data-testid={`paragraph-${number}`}
    >
      <div class="words" onClick={() => !selecting() && jump(index)}>
        <header class="paragraph-head">
          <button
            class={`ordinal-button${done ? " done" : ""}`}
            aria-label={said}
            title={said}
            aria-current={here ? "step" : undefined}
            data-testid={`listen-${number}`}
            onClick={(event) => {
              event.stopPropagation();
              jump(index, 0, true);
            }}
          >
            <span class="digit">{number}</span>
            <Icon name="play" />
          </button>
          <h2 id={title}>{paragraph.title}</h2>
        </header>
        <Sentences paragraph={paragraph} index={index} />
      </div>
      <Figure name={paragraph.figure} />
    </section>
  );
}

/** Sentences run on in one text; a displayed formula stands by itself between the parts of it. */
function Sentences({ paragraph, index }: { paragraph: Paragraph; index: number }) {
  const now = state.value;
  const spoken = now && now.status !== "idle" && now.paragraph === index ? now.sentence : -1;
  return (
    <div class="text">
      {paragraph.sentences.map((sentence, i) => (
        <Spoken key={i} sentence={sentence} place={[index, i]} now={spoken === i} />
      ))}
    </div>
  );
}

function Spoken({ sentence, place, now }: { sentence: Sentence; place: [number, number]; now: boolean }) {
  const [paragraph, index] = place;
  const shared = {
    "data-sentence": `${paragraph}.${index}`,
    "data-testid": `sentence-${paragraph + 1}-${index + 1}`,
    "aria-current": now ? ("true" as const) : undefined,
    onClick: (event: MouseEvent) => {
      event.stopPropagation();
      if (!selecting()) jump(paragraph, index);
    },
  };
  if (sentence.tex) return <Display tex={sentence.text} say={sentence.say} shared={shared} now={now} />;
  return (
    <>
      <span class={`sentence${now ? " spoken" : ""}`} {...shared}>
        <Words text={sentence.text} />
      </span>{" "}
    </>
  );
}

/** A displayed formula scrolls inside itself where it is wider than the page; the keyboard can reach it then. */
function Display({ tex, say, shared, now }: { tex: string; say: string; shared: object; now: boolean }) {
  const outer = useRef<HTMLDivElement>(null);
  const [wide, setWide] = useState(false);
  useEffect(() => {
    const box = outer.current;
    if (!box) return;
    const measured = new ResizeObserver(() => setWide(box.scrollWidth > box.clientWidth + 1));
    measured.observe(box);
    if (box.firstElementChild) measured.observe(box.firstElementChild); // it grows when its fonts come
    return () => measured.disconnect();
  }, []);
  const reach = wide ? { tabIndex: 0, role: "group" as const, "aria-label": `Formula, scrolls sideways: ${say}` } : {};
  return (
    <div class={`display sentence${now ? " spoken" : ""}`} ref={outer} {...reach} {...shared}>
      <Formula tex={tex} />
    </div>
  );
}

/** A reader who marks words to copy them does not want to jump. */
function selecting(): boolean {
  const selection = getSelection();
  return narration() === null || (selection !== null && !selection.isCollapsed);
}
