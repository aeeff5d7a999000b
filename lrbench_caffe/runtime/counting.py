"""Counts in a test pass: how the scores of one head of a net compare with the true classes.

The worker counts where the scores are, in Caffe's own memory, so that they are neither copied nor
sent to the driver. This file runs in the worker's interpreter: Python 2.7 or 3.x, with that
Python's numpy. ``lrbench_caffe.metrics`` makes the metrics of what is counted here.
"""
from __future__ import division

LOGITS, PROBABILITIES, SIGMOID = "logits", "probabilities", "sigmoid"
FORMS = (LOGITS, PROBABILITIES, SIGMOID)

# What the worker sends of a Counter when the pass is over; the latter are arrays, shape (classes,).
NUMBERS = ("samples", "top1", "top5", "entropy_sum")
BY_CLASS = ("count", "mean", "m2")

TOP_K = 5
BLOCK = 1 << 18  # scores that are processed together: as many as fit a core's cache
EXACT = 1 << 20  # batches with more scores than this (maps of pixels) are computed in 32 bits, as Caffe does
GROUP = 255  # classes whose comparisons are summed in a byte
LONGEST = 10000  # an output with more values than this is an image or the like, which has no mean


class Counter(object):
    """Counts one head over the batches of a test pass; its memory is O(classes).

    Args:
        form: what the scores are. "logits" and "probabilities" have a score for each class;
            "sigmoid" is one logit for each sample, that of class 1 of the classes 0 and 1.
        axis: the axis of the scores that the classes are on.
        ignore_label: samples with this label do not count; None for none.
        ignore_outside: the same, but only where this label is none of the classes.
        entropy: whether to sum -log(probability of the true class) over all samples.

    Attributes:
        samples: samples counted.
        top1, top5: how many of them are right, or have the true class among the 5 best.
        entropy_sum: the sum that was asked for.
        count, mean, m2: for each class, shape (classes,): number of right samples, mean and sum of
            squared deviations of their probabilities. None before the first batch.
        problem: why this head cannot be counted, None where it can.
    """

    def __init__(self, form, axis=1, ignore_label=None, ignore_outside=None, entropy=True):
        self.form, self.axis = form, axis
        self.ignore_label, self.ignore_outside = ignore_label, ignore_outside
        self.entropy = entropy
        self.samples = self.top1 = self.top5 = 0
        self.entropy_sum = 0.0
        self.count = self.mean = self.m2 = None
        self.problem = None

    def add(self, scores, labels):
        """Take one batch.

        Args:
            scores: shape (n, classes, ...) with the classes on ``axis``; for "sigmoid" any shape.
            labels: true classes, as many as there are score vectors, of any shape.
        """
        import numpy

        if self.problem:
            return
        kind = numpy.float64 if scores.size <= EXACT else numpy.float32
        outer, classes, inner = self._shape(scores.shape)
        if labels.size != outer * inner:
            self.problem = "%d score vectors for %d labels" % (outer * inner, labels.size)
            return
        if self.count is None:
            self.count, self.mean, self.m2 = (numpy.zeros(self._classes(classes)) for _ in range(3))
        scores, labels = scores.reshape(outer, classes, inner), labels.reshape(outer, inner)
        rows = max(1, BLOCK // (classes * inner))
        columns = inner if rows > 1 else max(1, BLOCK // classes)
        with numpy.errstate(all="ignore"):  # NaN, infinity and overflow are expected of diverged nets
            for row in range(0, outer, rows):
                for column in range(0, inner, columns):
                    part = slice(row, row + rows), slice(column, column + columns)
                    self._add_block(scores[part[0], :, part[1]], labels[part], kind)

    def _classes(self, channels):
        return 2 if self.form == SIGMOID else channels

    def _shape(self, shape):
        """Score vectors before the axis, their length, and score vectors behind the axis."""
        if self.form == SIGMOID:
            return product(shape), 1, 1
        axis = self.axis + len(shape) if self.axis < 0 else self.axis
        return product(shape[:axis]), shape[axis], product(shape[axis + 1:])

    def _add_block(self, scores, labels, kind):
        """Take scores of shape (n, classes, m) and labels of shape (n, m)."""
        import numpy

        classes = self._classes(scores.shape[1])
        truth = labels.astype(numpy.intp)
        inside = (truth >= 0) & (truth < classes)
        counted = self._counted(truth, inside)
        wrong = counted & ~inside
        if self.form == SIGMOID:
            wrong |= counted & (truth != labels)
        if wrong.any():
            self.problem = self._bad_labels(labels[counted], classes)
            return
        truth[~inside] = 0
        if self.form == SIGMOID:
            better, own, log_p = sigmoid_block(scores, truth, kind)
        else:
            own = own_scores(scores, truth)
            better = classes_as_good(scores, own) - 1
            log_p = None
        valid = counted & numpy.isfinite(own)  # NaN compares as not better, which must not pass for a hit
        with numpy.errstate(invalid="ignore"):  # inf - inf
            finite = numpy.isfinite(scores.sum(dtype=numpy.float64))
        if not finite:
            valid &= ~numpy.isnan(scores).any(axis=1)  # nor may another class's NaN
        hit = valid & (better < 1)
        self.samples += int(counted.sum())
        self.top1 += int(hit.sum())
        self.top5 += int((valid & (better < min(TOP_K, classes))).sum())
        if log_p is None and (self.entropy or hit.any()):
            log_p = self._log_probabilities(scores, own, kind)
        if self.entropy:
            self.entropy_sum -= float(log_p[counted].sum(dtype=numpy.float64))
        if hit.any():
            self._add_confidence(numpy.exp(log_p[hit].astype(numpy.float64)), truth[hit])

    def _counted(self, truth, inside):
        import numpy

        counted = numpy.ones(truth.shape, bool)
        if self.ignore_label is not None:
            counted &= truth != self.ignore_label
        if self.ignore_outside is not None:
            counted &= inside | (truth != self.ignore_outside)
        return counted

    def _bad_labels(self, labels, classes):
        import numpy

        if self.form == SIGMOID and numpy.all((labels >= 0) & (labels <= 1)):
            return "targets between 0 and 1, which are not class labels"
        return "labels from %g to %g, but %d classes (labels 0 to %d)" % (
            labels.min(), labels.max(), classes, classes - 1)

    def _log_probabilities(self, scores, own, kind):
        """log(probability of the true class), shape (n, m)."""
        import numpy

        if self.form == PROBABILITIES:
            # Caffe's losses put the smallest number of 32 bits in place of 0.
            return numpy.log(numpy.maximum(own, numpy.finfo(numpy.float32).tiny).astype(kind))
        # In a correct sample the own score is the largest one, and only those matter without the
        # entropy.
        top = scores.max(axis=1) if self.entropy else own
        below = numpy.subtract(scores, top[:, None, :], dtype=kind)
        rest = numpy.exp(below)  # not in place, for which old numpy has no fast way
        return numpy.subtract(own, top, dtype=kind) - numpy.log(rest.sum(axis=1))

    def _add_confidence(self, values, groups):
        """Merge the moments of ``values``, shape (k,), by ``groups`` with those so far (Chan et al.)."""
        import numpy

        classes = len(self.count)
        count = numpy.bincount(groups, minlength=classes).astype(numpy.float64)
        mean = numpy.bincount(groups, values, minlength=classes) / numpy.maximum(count, 1)
        m2 = numpy.bincount(groups, (values - mean[groups]) ** 2, minlength=classes)
        both = self.count + count
        share = count / numpy.maximum(both, 1)
        delta = mean - self.mean
        self.m2 = self.m2 + m2 + delta ** 2 * self.count * share
        self.mean = self.mean + delta * share
        self.count = both


def product(lengths):
    total = 1
    for length in lengths:
        total *= length
    return total


def own_scores(scores, truth):
    """The score of the true class, shape (n, m), of scores of shape (n, classes, m)."""
    import numpy

    rows = numpy.arange(scores.shape[0])[:, None]
    return scores[rows, truth, numpy.arange(scores.shape[2])[None, :]]


def classes_as_good(scores, own):
    """How many classes have at least the score of the true one, which is among them; shape (n, m).

    This is the rule of Caffe's Accuracy layer: a class with the same score counts as better.
    """
    import numpy

    total = numpy.zeros(own.shape, numpy.int32)
    for start in range(0, scores.shape[1], GROUP):
        as_good = scores[:, start:start + GROUP, :] >= own[:, None, :]
        total += numpy.add.reduce(as_good.view(numpy.uint8), axis=1, dtype=numpy.uint8)
    return total


def sigmoid_block(scores, truth, kind):
    """Classes that are better than the true one, its logit, and the log of its probability; shape (n, m).

    Class 1 is predicted where its probability is above 0.5.
    """
    import numpy

    logits = scores[:, 0, :].astype(kind)
    own = numpy.where(truth == 1, logits, -logits)
    better = numpy.where(truth == 1, logits <= 0, logits > 0).astype(numpy.int32)
    return better, own, -numpy.logaddexp(kind(0), -own)


class Output(object):
    """The mean of one of a net's outputs over the batches, in 32 bits, as Caffe itself adds it up.

    Attributes:
        name: the blob's name.
        weight: its loss weight.
        size: how many values it has.
        varies: whether that differs from batch to batch, so that there is no mean.
    """

    def __init__(self, name, weight):
        self.name, self.weight = name, weight
        self.size = None
        self.varies = False
        self.sums = None

    def add(self, data):
        import numpy

        if self.size is None:
            self.size = data.size
            self.sums = numpy.array([0.0] * (data.size if data.size <= LONGEST else 0), dtype=numpy.float32)
        self.varies = self.varies or data.size != self.size
        if not self.varies and len(self.sums):
            self.sums += data.ravel()

    def means(self, batches):
        """The means as 32-bit numbers; none where there is no mean, or where there are too many."""
        import numpy

        return [] if self.varies or self.sums is None else list(self.sums / numpy.float32(batches))


class Detections(object):
    """The mean average precision of what a DetectionEvaluate layer (of SSD's fork) puts out.

    Its output has five columns, and as many rows as there are detections. A row is (image, class,
    score, true positive, false positive), or (-1, class, number of objects of this class, -, -).

    Args:
        version: how the area under the curve of precision over recall is taken: the solver's
            ap_version.
    """

    size, varies, weight = 1, False, 0.0

    def __init__(self, name, version):
        self.name, self.version = name, version
        self.objects = {}  # by class
        self.found = {}  # (score, true positive, false positive), by class

    def add(self, data):
        for image, label, score, hit, miss in data.reshape(-1, 5).tolist():
            if int(image) == -1:
                self.objects[label] = self.objects.get(label, 0) + int(score)
            elif int(hit) or int(miss):  # neither is a difficult object, which does not count
                self.found.setdefault(label, []).append((score, int(hit), int(miss)))

    def means(self, batches):
        if not self.objects:
            return []
        areas = [self.average_precision(label) for label in self.objects]
        return [sum(areas) / len(areas)]

    def average_precision(self, label):
        import numpy

        detections = sorted(self.found.get(label, ()), key=lambda row: -row[0])
        if not detections or not self.objects[label]:
            return 0.0
        hits, misses = numpy.cumsum([row[1:] for row in detections], axis=0).astype(float).T
        precision, recall = hits / (hits + misses), hits / self.objects[label]
        best_from_here = numpy.maximum.accumulate(precision[::-1])[::-1]
        steps = numpy.diff(numpy.concatenate([[0.0], recall]))
        if self.version == "11point":
            marks = [best_from_here[recall >= mark / 10.0] for mark in range(11)]
            return float(sum(best[0] for best in marks if len(best)) / 11)
        if self.version == "MaxIntegral":
            # Up to each recall with the best precision from the one before it on.
            return float(steps[0] * best_from_here[0] + (steps[1:] * best_from_here[:-1]).sum())
        return float((steps * precision).sum())
