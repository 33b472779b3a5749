// Mathematics in text: "the evidence $p(x)$" as words and formulas.
import katex from "katex";
import { useMemo } from "preact/hooks";

const html = (tex: string, display: boolean): string =>
  katex.renderToString(tex, { displayMode: display, throwOnError: false, output: "htmlAndMathml", strict: false });

/** A displayed formula. */
export function Formula({ tex }: { tex: string }) {
  const inside = useMemo(() => html(tex, true), [tex]);
  return <span class="formula" dangerouslySetInnerHTML={{ __html: inside }} />;
}

/** Words with inline formulas between dollar signs. */
export function Words({ text }: { text: string }) {
  const parts = useMemo(
    () => text.split("$").map((part, i) => (i % 2 ? <span dangerouslySetInnerHTML={{ __html: html(part, false) }} /> : part)),
    [text],
  );
  return <>{parts}</>;
}
