// One bundle for all pages: the document says which page it is.
import { render, type ComponentChild } from "preact";
import { Lesson } from "./lesson/page";
import { Studio } from "./studio/page";
import "./main.css";

const pages: Record<string, () => ComponentChild> = { lesson: () => <Lesson />, studio: () => <Studio /> };
const root = document.getElementById("app");
const page = pages[document.body.dataset.page ?? ""];
if (root && page) {
  root.replaceChildren();
  render(page(), root);
}
