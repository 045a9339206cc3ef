"""Studies with people, as in the papers: what do they see in a map, and which of two models do they trust?

    mmcam.study.make.make(folder, dump, kind="words")     a study out of a dump: a folder with pictures and a plan
    Study.load(folder)                                    that plan; each person's own order follows from their code
    Store(folder, study)                                  the answers, one row each, in SQLite
    serve(study, folder, port)                            a page on this machine that people answer on
    export(study, folder, path)                           the same as one HTML file, whose answers are downloaded
    mmcam.study.analysis.analyse(study, answers)          accuracy, trust, agreement, and how likely by chance

Three kinds of questions. "discrimination": which of the two things in this picture is this map about? "words": which of
these two words of the caption does this map explain? "trust": two models say the same; which one looked at more
reasonable places, from -2 to +2? (Grad-CAM, arXiv 1610.02391, sections 5.1 and 5.2.)

Making and analysing need torch, and are not imported here: a page is served without it.
"""

from mmcam.study.answers import Answer, Store, read_answers
from mmcam.study.page import export
from mmcam.study.plan import Kind, Study, Trial
from mmcam.study.server import serve

__all__ = ["Answer", "Kind", "Store", "Study", "Trial", "export", "read_answers", "serve"]
