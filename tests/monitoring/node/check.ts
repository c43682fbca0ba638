// Written against the schema of the Grafana that docker-compose.yml names: every dashboard's JSON is
// pasted into `boards.ts` as a literal, so that the compiler also refuses keys that nobody reads.
import type {
  AnnotationQuery,
  Dashboard,
  GraphFieldConfig,
  OptionsWithLegend,
  OptionsWithTooltip,
  Panel,
  RowPanel,
} from "@grafana/schema";

// JSON has the values of string enums, not the enums.
export type Plain<T> = T extends string
  ? `${T}`
  : T extends readonly (infer U)[]
    ? Plain<U>[]
    : T extends object
      ? { [K in keyof T]: Plain<T[K]> }
      : T;

type Of<Kind extends string, Options, Custom> = Plain<
  Omit<Panel, "type" | "options" | "fieldConfig"> & {
    options: Options;
  }
> & {
  type: Kind;
  fieldConfig: {
    defaults: Plain<Omit<NonNullable<Panel["fieldConfig"]>["defaults"], "custom">> & {
      custom: Plain<Custom>;
    };
    overrides: never[];
  };
};

type AnyPanel =
  | Of<"timeseries", OptionsWithLegend & OptionsWithTooltip, GraphFieldConfig>
  | Of<"stat", Record<string, unknown>, Record<string, never>>
  | Of<"bargauge", Record<string, unknown>, Record<string, never>>
  | (Plain<RowPanel> & { type: "row" });

// What the Prometheus data source reads besides.
type PrometheusAnnotation = AnnotationQuery & {
  expr: string;
  step: string;
  titleFormat: string;
  textFormat: string;
  useValueForTime: boolean;
};

export type Board = Plain<Omit<Dashboard, "panels" | "annotations">> & {
  panels: AnyPanel[];
  annotations: { list: Plain<PrometheusAnnotation>[] };
};
