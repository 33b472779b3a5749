// The figures by the names that the lessons' texts give them.
import type { ComponentType } from "preact";
import { ApproximationFigure } from "./approximation";
import { BarFigure } from "./bar";
import { BeliefFigure } from "./belief";
import { BetasFigure } from "./betas";
import { GradientsFigure } from "./gradients";
import { ManifoldFigure } from "./manifold";

const FIGURES: Record<string, ComponentType> = {
  belief: BeliefFigure,
  approximation: ApproximationFigure,
  bar: BarFigure,
  betas: BetasFigure,
  gradients: GradientsFigure,
  plane: ManifoldFigure,
};

export function Figure({ name }: { name: string }) {
  const Found = FIGURES[name];
  return Found ? <Found /> : <p class="notice warn">This page has no figure called {name}.</p>;
}
