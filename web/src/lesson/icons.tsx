// The few signs on the buttons.
const PATHS = {
  play: "M7 4.5v15l12.5-7.5z",
  pause: "M6.5 4.5h4v15h-4zM13.5 4.5h4v15h-4z",
  previous: "M6 5h2.5v14H6zM19 5v14L9 12z",
  next: "M15.5 5H18v14h-2.5zM5 5v14l10-7z",
  captions: "M3 5.5h18v13H3zm2 2v9h14v-9zM7 13.5h6v1.6H7zM14.5 13.5H17v1.6h-2.5zM7 10.4h2.5V12H7zM11 10.4h6V12h-6z",
  back: "M12 4.5l6.5 6.5-1.5 1.5-3.9-3.9V20h-2.2V8.6L7 12.5 5.500 11z",
} as const;

export function Icon({ name }: { name: keyof typeof PATHS }) {
  return (
    <svg class="icon" viewBox="0 0 24 24" width="18" height="18" aria-hidden="true" focusable="false">
      <path d={PATHS[name]} fill="currentColor" fill-rule="evenodd" />
    </svg>
  );
}
