// The lesson page: the list of lessons, one lesson's text and figures, and its narration.
import { useEffect } from "preact/hooks";
import { switchTheme, theme } from "../core/theme";
import { Article } from "./article";
import { Bar } from "./bar";
import { Help } from "./help";
import { listenToKeys } from "./keys";
import { showSnapshot } from "./snapshot";
import { computedFrom } from "./figures/parts";
import {
  askSubject,
  begin,
  finished,
  follow,
  gone,
  lesson,
  lessons,
  narration,
  openLesson,
  progress,
  startOver,
  subject,
  text,
} from "./state";

export function Lesson() {
  useEffect(() => {
    showSnapshot();
    begin();
    const ends = [listenToKeys(), follow.attach(window), heedScrollbar()];
    return () => {
      for (const end of ends) end();
      narration()?.close();
    };
  }, []);
  const studio = (document.body.dataset.pages ?? "").split(" ").includes("studio");
  const opened = lesson.value;
  return (
    <div class="lesson">
      <header class="masthead">
        <span class="brand">
          <b>vaelid</b> lessons
        </span>
        <span class="links">
          {studio && (
            <a class="button" href="/studio">
              Studio
            </a>
          )}
          <button
            data-testid="theme"
            onClick={switchTheme}
            aria-label={`Switch to the ${theme() === "dark" ? "light" : "dark"} theme`}
          >
            {theme() === "dark" ? "Light" : "Dark"}
          </button>
        </span>
      </header>
      <main class="main">
        {gone.value && (
          <p class="notice warn gone" role="alert" data-testid="gone">
            {gone.value}
          </p>
        )}
        <List />
        {opened.state === "ready" ? (
          <>
            <div class="title">
              <h1>{opened.value.title}</h1>
              <p class="lead">{summary(opened.value.id)}</p>
              <About />
            </div>
            <Article lesson={opened.value} />
            <footer class="end">
              <p class="quiet">
                The end of the lesson. {progress.value} paragraphs heard.{" "}
                {finished.value.length > 0 && (
                  <button data-testid="start-over" onClick={startOver}>
                    Start over
                  </button>
                )}
              </p>
            </footer>
          </>
        ) : (
          <p class={opened.state === "failed" ? "notice warn" : "loading"} role="status" data-testid="lesson-status">
            {opened.said}
          </p>
        )}
      </main>
      <Bar />
      <Help />
    </div>
  );
}

const summary = (id: string): string =>
  lessons.value.state === "ready" ? (lessons.value.value.find((each) => each.id === id)?.summary ?? "") : "";

/** All lessons, in one slim list. */
function List() {
  const all = lessons.value;
  if (all.state !== "ready") return null;
  return (
    <nav class="lessons" aria-label="Lessons" data-testid="lessons">
      <ol>
        {all.value.map((line, i) => {
          const here = text.value?.id === line.id;
          return (
            <li>
              <button
                class="plain"
                aria-current={here ? "page" : undefined}
                data-testid={`lesson-${line.id}`}
                onClick={() => !here && void openLesson(line.id)}
              >
                <span class="ordinal">{i + 1}</span>
                <span class="name">{line.title}</span>
                <span class="facts">
                  {line.minutes} min{here && <> · {progress.value}</>}
                </span>
              </button>
            </li>
          );
        })}
      </ol>
    </nav>
  );
}

/** Which model the figures are computed from. */
function About() {
  const now = subject.value;
  if (now.state === "waiting") {
    return (
      <p class="about notice" role="status" data-testid="subject-status">
        {now.said}
      </p>
    );
  }
  if (now.state === "failed") {
    return (
      <p class="about notice warn" role="alert" data-testid="subject-status">
        {now.said} <button onClick={askSubject}>Try again</button>
      </p>
    );
  }
  return (
    <p class="about quiet" data-testid="subject">
      {now.value.said || computedFrom(now.value)} <span class="boxes">{now.value.model}.</span>
    </p>
  );
}

/** Whoever takes the scroll bar in hand scrolls too, though no wheel turns. */
function heedScrollbar(): () => void {
  const pressed = (event: MouseEvent): void => {
    if (event.clientX >= document.documentElement.clientWidth) follow.heard({ type: "wheel" });
  };
  addEventListener("mousedown", pressed);
  return () => removeEventListener("mousedown", pressed);
}
