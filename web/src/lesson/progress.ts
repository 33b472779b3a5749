// How far a lesson has been heard, kept in this browser.

export interface Kept {
  finished: number[];
  paragraph: number;
  sentence: number;
}

const NOTHING: Kept = { finished: [], paragraph: 0, sentence: 0 };
const key = (lesson: string): string => `vaelid-lesson-${lesson}`;
const count = (value: unknown): value is number => Number.isInteger(value) && (value as number) >= 0;

export function kept(lesson: string, paragraphs: number): Kept {
  try {
    const found = JSON.parse(localStorage.getItem(key(lesson)) ?? "null") as Partial<Kept> | null;
    if (!found || !Array.isArray(found.finished) || !count(found.paragraph) || !count(found.sentence)) return NOTHING;
    const finished = [...new Set(found.finished)]
      .filter((each) => count(each) && each < paragraphs)
      .sort((a, b) => a - b);
    return { finished, paragraph: Math.min(found.paragraph, paragraphs - 1), sentence: found.sentence };
  } catch {
    return NOTHING;
  }
}

export function keep(lesson: string, progress: Kept): void {
  try {
    localStorage.setItem(key(lesson), JSON.stringify(progress));
  } catch {
    // a browser that keeps nothing
  }
}
