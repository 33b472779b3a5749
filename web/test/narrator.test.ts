import assert from "node:assert/strict";
import { test } from "node:test";

import { readingTime, SILENT } from "../src/lesson/clocks";
import { Follow } from "../src/lesson/follow";
import { Narrator } from "../src/lesson/narrator";
import type { ClockName, State } from "../src/lesson/narrator";
import { lesson, world } from "./fakes";
import type { Manner, World } from "./fakes";

const HOUR = 3_600_000;

function begin(clock: ClockName, env: World = world(), audio = true): { narrator: Narrator; states: State[] } {
  const states: State[] = [];
  const narrator = new Narrator(lesson(audio), { clock, environment: env, onChange: (state) => states.push(state) });
  return { narrator, states };
}

/** The places in the order they were visited, each once while it lasts. */
function visited(states: State[]): string[] {
  const places = states.filter((s) => s.status === "playing").map((s) => `${s.paragraph}.${s.sentence}`);
  return places.filter((place, n) => place !== places[n - 1]);
}

const ALL = Array.from({ length: 18 }, (_, n) => `${Math.floor(n / 3)}.${n % 3}`);

function reachesTheEnd(states: State[], narrator: Narrator): void {
  assert.deepEqual(visited(states), ALL);
  assert.deepEqual([...new Set(states.map((state) => state.progress))], [0, 1, 2, 3, 4, 5, 6].map((k) => `${k} / 6`));
  assert.equal(narrator.state.status, "idle");
  assert.deepEqual(narrator.state.finished, [0, 1, 2, 3, 4, 5]);
}

for (const speed of [1, 16]) {
  test(`audio at speed ${speed} visits every sentence once and reads k / 6`, () => {
    const env = world();
    const { narrator, states } = begin("audio", env);
    narrator.setSpeed(speed);
    narrator.play();
    env.time.pass(HOUR);
    reachesTheEnd(states, narrator);
    assert.equal(env.audios.length, 1);
    assert.deepEqual(env.audios[0]!.sources, [1, 2, 3, 4, 5, 6].map((n) => `/assets/audio/a-lesson-${n}.mp3`));
    assert.equal(env.audios[0]!.playbackRate, speed);
    assert.equal(narrator.state.clock, "audio");
  });
}

test("without frames, as in a hidden tab, audio still finds its sentences", () => {
  const env = { ...world(), frame: () => () => undefined };
  const { narrator, states } = begin("audio", env);
  narrator.play();
  env.time.pass(HOUR);
  reachesTheEnd(states, narrator);
});

test("silence keeps its measure and reaches the end", () => {
  const env = world();
  const { narrator, states } = begin("silent", env);
  narrator.play();
  const length = lesson().paragraphs.flatMap((p) => p.sentences).reduce((sum, s) => sum + readingTime(s.say) + SILENT.rest, 0);
  env.time.pass(length - 1);
  assert.equal(narrator.state.progress, "5 / 6");
  env.time.pass(2);
  reachesTheEnd(states, narrator);
  assert.equal(env.audios.length, 0);
});

test("silence measures what is left of a sentence at the speed that held", () => {
  const env = world();
  const { narrator } = begin("silent", env);
  const length = readingTime(lesson().paragraphs[0]!.sentences[0]!.say) + SILENT.rest;
  narrator.play();
  narrator.setSpeed(4);
  env.time.pass(length / 8); // half of it
  narrator.pause();
  narrator.setSpeed(1);
  narrator.play();
  env.time.pass(length / 2 - 1);
  assert.equal(narrator.state.sentence, 0);
  env.time.pass(2);
  assert.equal(narrator.state.sentence, 1);
});

test("a lesson that was never recorded runs in silence and says so", () => {
  const env = world();
  const { narrator, states } = begin("audio", env, false);
  assert.equal(narrator.state.clock, "silent");
  assert.match(narrator.state.notice, /without recorded audio/);
  narrator.play();
  env.time.pass(HOUR);
  reachesTheEnd(states, narrator);
});

const manners: [Manner | null, ClockName, RegExp][] = [
  ["normal", "speech", /^$/],
  ["bare", "speech", /^$/],
  ["mute", "speech", /^$/],
  ["late", "speech", /^$/],
  ["endless", "speech", /^$/],
  ["hangs", "silent", /says nothing/],
  ["fails", "silent", /voice failed/],
  ["none", "silent", /no voice/],
  ["foreign", "silent", /no English voice/],
  [null, "silent", /no voice/],
];
for (const [manner, clock, notice] of manners) {
  test(`speech reaches the end with a voice that is: ${manner ?? "absent"}`, () => {
    const env = world(manner);
    const { narrator, states } = begin("speech", env);
    narrator.play();
    env.time.pass(HOUR);
    reachesTheEnd(states, narrator);
    assert.equal(narrator.state.clock, clock);
    assert.match(narrator.state.notice, notice);
    assert.ok((env.speech?.most ?? 0) <= 1, "never two utterances at once");
    if (clock === "speech") assert.equal(env.speech!.said.length, 18);
  });
}

test("a voice that dies after 14 seconds is overtaken by the watchdog", () => {
  const env = world("dies");
  const { narrator, states } = begin("speech", env);
  narrator.setSpeed(0.5); // the long sentence takes 16 s and never ends
  narrator.play();
  env.time.pass(HOUR);
  reachesTheEnd(states, narrator);
  assert.equal(narrator.state.clock, "speech");
  assert.equal(env.speech!.said.length, 18);
});

test("one silent stretch of a voice is forgiven, two in a row are not", () => {
  const env = world("hangs");
  const { narrator } = begin("speech", env);
  narrator.play();
  env.time.pass(10_000);
  assert.equal(narrator.state.sentence, 1);
  assert.equal(narrator.state.clock, "speech");
  env.time.pass(30_000);
  assert.equal(narrator.state.clock, "silent");
});

test("a recording that is missing, refused or stuck gives way to silence at the same sentence", async () => {
  for (const trouble of ["missing", "refused", "stuck"]) {
    const env = world("normal", (src) => (trouble === "missing" && src.endsWith("-2.mp3") ? null : 12));
    const { narrator } = begin("audio", env);
    narrator.jump(trouble === "missing" ? 0 : 1, trouble === "missing" ? 0 : 2);
    narrator.play();
    if (trouble !== "missing") env.time.pass(1000);
    if (trouble === "refused") {
      narrator.pause();
      env.audios[0]!.refusal = Object.assign(new Error("no"), { name: "NotAllowedError" });
      narrator.play();
      await new Promise<void>((go) => queueMicrotask(() => queueMicrotask(go)));
    }
    if (trouble === "stuck") {
      env.audios[0]!.stuck = true;
      env.time.pass(0);
      env.audios[0]!.currentTime = 8.2;
      env.time.pass(10_000);
    }
    if (trouble === "missing") env.time.pass(12_050);
    assert.equal(narrator.state.clock, "silent", trouble);
    assert.match(narrator.state.notice, /Captions go on in silence/);
    assert.equal(narrator.state.status, "playing");
    assert.deepEqual([narrator.state.paragraph, narrator.state.sentence], [1, trouble === "missing" ? 0 : 2], trouble);
    assert.ok(env.audios[0]!.paused && env.audios[0]!.removed);
    env.time.pass(HOUR);
    assert.equal(narrator.state.status, "idle");
  }
});

test("a play that a pause interrupts is no failure", async () => {
  const env = world();
  const { narrator } = begin("audio", env);
  narrator.play();
  env.time.pass(1000);
  env.audios[0]!.refusal = Object.assign(new Error("interrupted"), { name: "AbortError" });
  narrator.pause();
  narrator.play();
  await new Promise<void>((go) => queueMicrotask(() => queueMicrotask(go)));
  assert.equal(narrator.state.clock, "audio");
  assert.equal(narrator.state.notice, "");
});

for (const clock of ["audio", "speech", "silent"] as const) {
  test(`${clock}: a pause freezes, and play goes on`, () => {
    const env = world();
    const { narrator, states } = begin(clock, env);
    narrator.play();
    env.time.pass(5000);
    narrator.pause();
    const { state } = narrator;
    const seen = states.length;
    env.time.pass(HOUR);
    assert.equal(narrator.state, state);
    assert.equal(states.length, seen);
    assert.ok(env.audios.every((audio) => audio.paused));
    narrator.play();
    env.time.pass(HOUR);
    reachesTheEnd(states, narrator);
  });

  test(`${clock}: jumping keeps the status, and what was skipped is not finished`, () => {
    const env = world();
    const { narrator } = begin(clock, env);
    narrator.jump(3);
    assert.equal(narrator.state.status, "idle");
    narrator.play();
    env.time.pass(1000);
    assert.equal(narrator.state.paragraph, 3);
    narrator.jump(1, 1);
    assert.deepEqual([narrator.state.status, narrator.state.paragraph, narrator.state.sentence], ["playing", 1, 1]);
    env.time.pass(1000);
    assert.deepEqual([narrator.state.paragraph, narrator.state.sentence], [1, 1]);
    assert.ok(env.audios.length <= 1 && (env.speech?.most ?? 0) <= 1, "one voice");
    narrator.pause();
    narrator.jump(4, 2);
    env.time.pass(HOUR);
    assert.deepEqual([narrator.state.status, narrator.state.paragraph, narrator.state.sentence], ["paused", 4, 2]);
    assert.equal(narrator.state.progress, "0 / 6");
    narrator.play();
    if (clock === "audio") assert.match(env.audios[0]!.src, /-5\.mp3$/);
    env.time.pass(HOUR);
    assert.deepEqual(narrator.state.finished, [4, 5]);
    assert.equal(narrator.state.progress, "2 / 6");
  });

  test(`${clock}: a new speed holds from the middle of a sentence on`, () => {
    const slow = world();
    const fast = world();
    for (const [env, speed] of [[slow, 1], [fast, 4]] as const) {
      const { narrator, states } = begin(clock, env);
      narrator.play();
      env.time.pass(1500);
      narrator.setSpeed(speed);
      assert.equal(narrator.state.speed, speed);
      let ended = 0;
      env.time.pass(HOUR, () => {
        if (ended === 0 && narrator.state.status === "idle") ended = env.time.now;
      });
      reachesTheEnd(states, narrator);
      env.time.now = ended;
    }
    const times = (slow.time.now - 1500) / (fast.time.now - 1500);
    // An utterance keeps the rate it began with, so the first sentence is begun again.
    assert.deepEqual(fast.speech!.said.length, clock === "speech" ? 19 : 0);
    assert.ok(clock === "speech" ? times > 2.5 : Math.abs(times - 4) < 0.1, `${times} times as fast`);
  });

  test(`${clock}: after the end, play begins anew and keeps what was finished`, () => {
    const env = world();
    const { narrator } = begin(clock, env);
    narrator.jump(5, 2);
    narrator.play();
    env.time.pass(HOUR);
    assert.deepEqual([narrator.state.status, narrator.state.paragraph, narrator.state.sentence], ["idle", 5, 2]);
    narrator.play();
    assert.deepEqual([narrator.state.paragraph, narrator.state.sentence, narrator.state.progress], [0, 0, "1 / 6"]);
    env.time.pass(HOUR);
    assert.equal(narrator.state.progress, "6 / 6");
  });
}

test("a jump in audio lands on the sentence's beginning, in the same element", () => {
  const env = world();
  const { narrator, states } = begin("audio", env);
  narrator.play();
  env.time.pass(1000);
  narrator.jump(0, 2);
  assert.equal(env.audios[0]!.currentTime, 8.2);
  narrator.jump(2, 1);
  env.time.pass(40);
  assert.deepEqual(visited(states), ["0.0", "0.2", "2.1"]);
  assert.equal(env.audios[0]!.currentTime, 4.2);
  assert.equal(env.audios[0]!.paused, false);
  assert.equal(env.audios.length, 1);
});

test("next and previous go by sentences, over the edges of paragraphs and not over those of the lesson", () => {
  const { narrator } = begin("silent");
  const at = (): string => `${narrator.state.paragraph}.${narrator.state.sentence}`;
  narrator.previous();
  assert.equal(at(), "0.0");
  for (let n = 0; n < 3; n += 1) narrator.next();
  assert.equal(at(), "1.0");
  narrator.previous();
  assert.equal(at(), "0.2");
  narrator.jump(99, 99);
  assert.equal(at(), "5.2");
  narrator.next();
  assert.equal(at(), "5.2");
  narrator.jump(-1, Number.NaN);
  assert.equal(at(), "0.0");
});

test("a change of clock goes on with the sentence, and the former clock is heard no more", () => {
  const env = world();
  const { narrator, states } = begin("audio", env);
  narrator.play();
  env.time.pass(5000);
  narrator.setClock("speech");
  assert.ok(env.audios[0]!.paused && env.audios[0]!.removed);
  assert.deepEqual([narrator.state.clock, narrator.state.sentence], ["speech", 1]);
  env.time.pass(2000);
  narrator.setClock("silent");
  env.time.pass(2000);
  narrator.setClock("audio");
  env.time.pass(HOUR);
  reachesTheEnd(states, narrator);
  assert.equal(env.audios.filter((audio) => !audio.paused).length, 0);
});

test("closed, it says nothing more", () => {
  const env = world();
  const { narrator, states } = begin("audio", env);
  narrator.play();
  env.time.pass(1000);
  narrator.close();
  const seen = states.length;
  narrator.play();
  narrator.jump(2);
  env.time.pass(HOUR);
  assert.equal(states.length, seen);
  assert.equal(narrator.state.status, "idle");
});

test("captions are the spoken words, and snapshots are frozen", () => {
  const { narrator } = begin("silent");
  assert.equal(narrator.state.caption, "A belief should change when new evidence arrives");
  assert.ok(Object.isFrozen(narrator.state) && Object.isFrozen(narrator.state.finished));
});

test("twenty turns of the wheel end the following and leave the narrator alone", () => {
  const env = world();
  const { narrator } = begin("audio", env);
  const changes: boolean[] = [];
  const follow = new Follow((following) => changes.push(following));
  const target = new EventTarget();
  const detach = follow.attach(target);
  narrator.play();
  env.time.pass(5000);
  const { state } = narrator;
  for (let n = 0; n < 20; n += 1) target.dispatchEvent(new Event("wheel"));
  assert.equal(narrator.state, state);
  assert.deepEqual(changes, [false]);
  env.time.pass(HOUR);
  assert.equal(narrator.state.progress, "6 / 6");
  follow.back();
  assert.deepEqual(changes, [false, true]);
  detach();
  target.dispatchEvent(new Event("wheel"));
  assert.equal(follow.following, true);
});

test("following ends by what scrolls and by nothing else", () => {
  const scrolls = (gesture: Parameters<Follow["heard"]>[0]): boolean => {
    const follow = new Follow();
    follow.heard(gesture);
    return !follow.following;
  };
  for (const key of ["ArrowDown", "PageUp", "Home", "End", " "]) assert.ok(scrolls({ type: "keydown", key }), key);
  assert.ok(scrolls({ type: "touchmove" }));
  assert.ok(!scrolls({ type: "keydown", key: "a" }));
  assert.ok(!scrolls({ type: "wheel", ctrlKey: true }));
  assert.ok(!scrolls({ type: "wheel", defaultPrevented: true }));
  assert.ok(!scrolls({ type: "keydown", key: " ", target: { tagName: "BUTTON" } }));
  assert.ok(!scrolls({ type: "keydown", key: "ArrowUp", target: { tagName: "input" } }));
});
