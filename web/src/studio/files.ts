// Files that the browser saves: tables and pictures made in the page.

export const sheet = (csv: string): Blob => new Blob([csv], { type: "text/csv;charset=utf-8" });
export const drawing = (svg: string): Blob => new Blob([svg], { type: "image/svg+xml;charset=utf-8" });

/** Save a file under a name. */
export function save(blob: Blob, name: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

export function savePicture(canvas: HTMLCanvasElement, name: string): Promise<void> {
  return new Promise((done) =>
    canvas.toBlob((blob) => {
      if (blob) save(blob, name);
      done();
    }, "image/png"),
  );
}

/** A name that every file system takes. */
export const fileName = (...parts: (string | number)[]): string =>
  parts.map((part) => String(part).replace(/[^\w.-]+/g, "-")).filter(Boolean).join("-");
