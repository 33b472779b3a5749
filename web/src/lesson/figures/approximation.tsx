// Figure 2: an ellipse to drag over the true posterior, with its divergence.
import { withError } from "../../core/numbers";
import type { Subject } from "../desk";
import { EllipsePlane } from "./ellipse";
import { approximation, belief, closeUp, move, q, retry, stale, type Named } from "./inference";
import { Box, Status } from "./parts";
import { Picker } from "./picker";

export function ApproximationFigure() {
  return (
    <Box
      name="approximation"
      title="A Gaussian against the true posterior"
      caption="Shaded: p(z|x), zero to its largest value. The ellipse is q at one and two (dashed) standard deviations: drag its middle, its ends, or the ring that turns it."
    >
      {(model) => <Inside model={model} />}
    </Box>
  );
}

function Inside({ model }: { model: Subject }) {
  const [near, at, kl] = [closeUp.value, q.value, approximation.value];
  const said = kl.state === "ready" ? `KL is ${withError(kl.value.kl, kl.value.kl_error)} nats.` : "";
  return (
    <>
      <Picker model={model} id="approximation" />
      <div class={stale.value ? "stale" : ""}>
        {near.state === "ready" && at ? (
          <EllipsePlane
            frame={near.value.frame}
            posterior={near.value.log_posterior}
            q={at}
            move={move}
            testid="ellipse"
            said={said}
          />
        ) : (
          <Status
            of={belief.value.state === "failed" ? belief.value : near.state === "ready" ? belief.value : near}
            retry={retry}
          />
        )}
        {kl.state === "ready" ? (
          <>
            <p class="reading" data-testid="approximation-kl">
              KL(q ‖ p(z|x)) = <b>{withError(kl.value.kl, kl.value.kl_error)}</b> nats
            </p>
            <div class="choices-row">
              <Choice name="encoder" words="The encoder’s q" of={kl.value.encoder} />
              <Choice name="best" words="The best Gaussian" of={kl.value.best} />
            </div>
          </>
        ) : (
          <Status of={kl} />
        )}
      </div>
    </>
  );
}

/** Set q to one that is known. */
export function Choice({ name, words, of }: { name: string; words: string; of: Named }) {
  return (
    <button
      data-testid={`choose-${name}`}
      title={of.said}
      onClick={() => move({ mean: of.mean, sd: of.sd, angle: of.angle })}
    >
      {words} <span class="quiet">KL {withError(of.kl, of.kl_error)}</span>
    </button>
  );
}
